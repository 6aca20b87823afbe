//! Documents as a rebuild saw them. The mark of one is the filter that finds it for as long as it is the same.

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc},
};

use super::{
    connection::{SERVER_LIMIT, limited},
    documents::{read, unwritable},
};
use tandem_event_path::store::{PublishedRow, StoreError};

/// At most `limit` documents that the filter finds, in this order, each as it is seen now: see `as_seen`.
///
/// # Errors
/// When the server does not answer, or a document has no text in the field `id`.
pub async fn published_page<T: Send + Sync>(
    collection: &Collection<T>,
    filter: Document,
    order: Document,
    limit: usize,
    id: &str,
    fields: &[&str],
) -> Result<Vec<PublishedRow>, StoreError> {
    let shown: Document = fields
        .iter()
        .map(|field| ((*field).to_owned(), Bson::Int32(1)))
        .collect();
    let reading = async {
        let cursor = collection
            .clone_with_type::<RawDocumentBuf>()
            .find(filter)
            .projection(shown)
            .sort(order)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .max_time(SERVER_LIMIT)
            .await?;
        cursor.try_collect::<Vec<_>>().await
    };
    let documents = limited(reading).await?;
    documents
        .iter()
        .map(|document| as_seen(document, id, fields))
        .collect()
}

/// A document as it was seen. `id` is the field that names whose it is; any change that matters must change one of `fields`.
///
/// # Errors
/// [`StoreError::Corrupt`] when it has no text in the field `id`.
fn as_seen(stored: &RawDocument, id: &str, fields: &[&str]) -> Result<PublishedRow, StoreError> {
    let document = Document::try_from(stored).map_err(unwritable)?;
    let key = document.get("_id").cloned().unwrap_or(Bson::Null);
    let mut filter = doc! { "_id": { "$eq": key } };
    for field in fields {
        let same = match document.get(field) {
            Some(value) => doc! { "$eq": value.clone() },
            None => doc! { "$exists": false },
        };
        filter.insert(*field, same);
    }
    Ok(PublishedRow {
        id: document.get_str(id).map_err(unwritable)?.to_owned(),
        revision: stored_revision(stored),
        version: RawDocumentBuf::try_from(&filter)
            .map_err(unwritable)?
            .into_bytes(),
    })
}

/// The filter that finds the document as it was seen.
///
/// # Errors
/// [`StoreError::Corrupt`] when another store made the mark.
pub fn still_as(seen: &PublishedRow) -> Result<Document, StoreError> {
    let raw = RawDocumentBuf::from_bytes(seen.version.clone()).map_err(unwritable)?;
    read(&raw)
}

/// A statement of a `delete` command for the one document that this filter finds.
///
/// # Errors
/// [`StoreError::Corrupt`] when the filter is too large for a document.
pub fn deletion(filter: Document) -> Result<RawDocumentBuf, StoreError> {
    RawDocumentBuf::try_from(&doc! { "q": filter, "limit": 1 }).map_err(unwritable)
}

/// The revision of a stored document. What is no whole number was not written by this service: it is ahead of whatever the log
/// says.
#[must_use]
pub fn stored_revision(document: &RawDocument) -> i64 {
    match document.get("revision") {
        Ok(Some(RawBsonRef::Int32(revision))) => i64::from(revision),
        Ok(Some(RawBsonRef::Int64(revision))) => revision,
        _ => i64::MAX,
    }
}
