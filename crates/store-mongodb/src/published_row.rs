//! Documents as a rebuild saw them. The version of a row is a filter that matches the document as long as it is
//! unchanged.

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

/// At most `limit` documents that match the filter, in this order, each as it is now: see `as_seen`.
///
/// # Errors
/// If the server does not answer, or the field `id` of a document is not a text.
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

/// A document as it was seen. The field `id` names the aggregate. Any relevant change must change one of `fields`.
///
/// # Errors
/// [`StoreError::Corrupt`] if the field `id` is not a text.
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

/// The filter that matches the document only if it is unchanged.
///
/// # Errors
/// [`StoreError::Corrupt`] if another store made the version.
pub fn still_as(seen: &PublishedRow) -> Result<Document, StoreError> {
    let raw = RawDocumentBuf::from_bytes(seen.version.clone()).map_err(unwritable)?;
    read(&raw)
}

/// A statement of a `delete` command for the one document that this filter matches.
///
/// # Errors
/// [`StoreError::Corrupt`] when the filter is too large for a document.
pub fn deletion(filter: Document) -> Result<RawDocumentBuf, StoreError> {
    RawDocumentBuf::try_from(&doc! { "q": filter, "limit": 1 }).map_err(unwritable)
}

/// The revision of a stored document. If it is not a whole number, this service did not write it, and it counts as
/// ahead of the log.
#[must_use]
pub fn stored_revision(document: &RawDocument) -> i64 {
    match document.get("revision") {
        Ok(Some(RawBsonRef::Int32(revision))) => i64::from(revision),
        Ok(Some(RawBsonRef::Int64(revision))) => revision,
        _ => i64::MAX,
    }
}
