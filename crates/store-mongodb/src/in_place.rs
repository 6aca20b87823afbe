//! Documents put in the place of what is stored, for a rebuild: a look first, since most are there and right and then cost
//! no write. What is missing is inserted, which costs MongoDB less than an upsert; only what differs is updated.

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

/// Documents that are looked at with one command, and then written.
const AT_ONCE: usize = 500;
/// Of which so many are on their way at once: while the server works on one, the next is being encoded.
const PARTS: usize = 3;

/// A document as it should be stored.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its `_id`.
    pub id: String,
    /// The whole of it, with its `_id`.
    pub document: RawDocumentBuf,
}

/// How documents of one kind are put in the place of what is stored.
#[derive(Debug)]
pub struct InPlace<'a, R, U> {
    /// Where.
    pub database: &'a Database,
    /// In which collection.
    pub collection: &'a str,
    /// What is read of the stored ones: a projection, empty for all of it.
    pub shown: Document,
    /// Whether a stored document may stay, given the wanted one: it says the same, or something newer.
    pub may_stay: R,
    /// The statement of an `update` command that puts a document in the place of one that may not stay. It is an upsert, or
    /// matches nothing where somebody wrote a better one meanwhile.
    pub update: U,
}

/// What became of many documents.
#[derive(Debug, Default)]
pub struct PutInPlace {
    /// How many were there and were not to stay.
    pub replaced: u64,
    /// Those whose update met another document with the same unique value.
    pub refused: Vec<Wanted>,
}

impl<R, U> InPlace<'_, R, U>
where
    R: Fn(&RawDocument, &RawDocument) -> bool + Send + Sync,
    U: Fn(&Wanted) -> Result<RawDocumentBuf, StoreError> + Send + Sync,
{
    /// Puts the document of each thing in its place, in any order. Durable when this returns. Documents are made when their turn
    /// comes.
    ///
    /// # Errors
    /// What making a document fails with, or when the server does not answer or refuses; some may then be in place, and putting them
    /// there again does no harm.
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

/// Whether a stored document may stay where a revision is wanted: it is of a newer one, or of the same and says the same.
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

/// Those at these places.
fn only(wanted: Vec<Wanted>, places: Vec<usize>) -> impl Iterator<Item = Wanted> {
    let places: HashSet<usize> = places.into_iter().collect();
    wanted
        .into_iter()
        .enumerate()
        .filter_map(move |(place, wanted)| places.contains(&place).then_some(wanted))
}
