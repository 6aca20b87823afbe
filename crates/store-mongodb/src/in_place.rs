//! Replaces stored documents in a rebuild. It reads them first, because most exist and are right, and then need no
//! write. Missing documents are inserted, which costs MongoDB less than an upsert. Only documents that differ are
//! updated.

use std::{
    cmp::Ordering,
    collections::{HashMap, HashSet},
};

use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Database,
    bson::{Document, RawDocument, RawDocumentBuf, doc},
};

use super::{
    bulk::{Bulk, bulk},
    connection::{SERVER_LIMIT, limited},
    published_row::stored_revision,
};
use tandem_event_path::store::StoreError;

/// How many documents are compared with one command, and then written.
const AT_ONCE: usize = 500;
/// How many such groups are processed at once. While the server works on one, the next is encoded.
const PARTS: usize = 3;

/// A document as it should be stored.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its `_id`.
    pub id: String,
    /// The whole document, with its `_id`.
    pub document: RawDocumentBuf,
}

/// How to replace stored documents of one kind.
#[derive(Debug)]
pub struct InPlace<'a, R, U> {
    /// The database.
    pub database: &'a Database,
    /// The name of the collection.
    pub collection: &'a str,
    /// The projection of the stored documents for the comparison; empty for the whole document.
    pub shown: Document,
    /// Whether a stored document may stay, given the wanted one: its content is the same or newer.
    pub may_stay: R,
    /// Makes the statement of an `update` command that replaces a document that may not stay. It must be an upsert, or
    /// match nothing if another writer has stored a better one meanwhile.
    pub update: U,
}

/// The result for many documents.
#[derive(Debug, Default)]
pub struct PutInPlace {
    /// How many stored documents had to be replaced.
    pub replaced: u64,
    /// The documents whose update failed because another document has the same unique value.
    pub refused: Vec<Wanted>,
}

impl<R, U> InPlace<'_, R, U>
where
    R: Fn(&RawDocument, &RawDocument) -> bool + Send + Sync,
    U: Fn(&Wanted) -> Result<RawDocumentBuf, StoreError> + Send + Sync,
{
    /// Puts the document of each thing in its place, in any order. They are durable when this returns. The documents
    /// are made group by group.
    ///
    /// # Errors
    /// The error of making a document. Also when the server does not answer or refuses; some documents may be in place
    /// then, and a repetition does no harm.
    pub async fn put<T: Sync>(
        &self,
        things: &[T],
        wanted: impl Fn(&T) -> Result<Wanted, StoreError> + Send + Sync,
    ) -> Result<PutInPlace, StoreError> {
        let wanted = &wanted;
        let parts: Vec<_> = things
            .chunks(AT_ONCE)
            .map(|things| async move {
                let wanted = things.iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
                self.put_some(wanted).await
            })
            .collect();
        stream::iter(parts)
            .buffer_unordered(PARTS)
            .try_fold(PutInPlace::default(), async |mut all, part| {
                all.replaced += part.replaced;
                all.refused.extend(part.refused);
                Ok(all)
            })
            .await
    }

    async fn put_some(&self, wanted: Vec<Wanted>) -> Result<PutInPlace, StoreError> {
        let stored = self.look(&wanted).await?;
        let (mut missing, mut differing) = (Vec::new(), Vec::new());
        for wanted in wanted {
            match stored.get(&wanted.id) {
                None => missing.push(wanted),
                Some(stored) if (self.may_stay)(stored, &wanted.document) => {}
                Some(_) => differing.push(wanted),
            }
        }
        let replaced = differing.len() as u64;
        let (database, collection) = (self.database, self.collection);
        let insertion = |wanted: &Wanted| Ok(wanted.document.clone());
        let done = bulk(database, collection, Bulk::Insert, &missing, insertion).await?;
        differing.extend(only(missing, done.refused));
        let done = bulk(database, collection, Bulk::Update, &differing, &self.update).await?;
        Ok(PutInPlace {
            replaced,
            refused: only(differing, done.refused).collect(),
        })
    }

    async fn look(&self, wanted: &[Wanted]) -> Result<HashMap<String, RawDocumentBuf>, StoreError> {
        let ids: Vec<&str> = wanted.iter().map(|wanted| wanted.id.as_str()).collect();
        let reading = async {
            let cursor = self
                .database
                .collection::<RawDocumentBuf>(self.collection)
                .find(doc! { "_id": { "$in": ids } })
                .projection(self.shown.clone())
                .batch_size(u32::try_from(AT_ONCE + 1).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        let stored = limited(reading).await?;
        Ok(stored
            .into_iter()
            .filter_map(|document| Some((document.get_str("_id").ok()?.to_owned(), document)))
            .collect())
    }
}

/// Whether a stored document may stay when a revision is wanted: it is newer, or has the same revision and content.
pub fn is_up_to_date(
    stored: &RawDocument,
    wanted: &RawDocument,
    say_the_same: impl FnOnce(&RawDocument, &RawDocument) -> bool,
) -> bool {
    match stored_revision(stored).cmp(&stored_revision(wanted)) {
        Ordering::Greater => true,
        Ordering::Equal => say_the_same(stored, wanted),
        Ordering::Less => false,
    }
}

/// The elements at these indices.
fn only(wanted: Vec<Wanted>, places: Vec<usize>) -> impl Iterator<Item = Wanted> {
    let places: HashSet<usize> = places.into_iter().collect();
    wanted
        .into_iter()
        .enumerate()
        .filter_map(move |(place, wanted)| places.contains(&place).then_some(wanted))
}
