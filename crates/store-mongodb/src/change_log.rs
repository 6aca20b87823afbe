//! The audit trail in MongoDB, one document for each entry. Its `_id` consists of subject and revision, so that the
//! first entry of a revision stays.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection, Database, IndexModel,
    bson::{self, RawDocument, RawDocumentBuf, Uuid, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    bulk::{Bulk, bulk},
    connection::{SERVER_LIMIT, insert_new, limited},
    documents::{binary, date, read, time, unwritable, uuid},
    in_place::{InPlace, Wanted},
    published_row::{deletion, published_page, still_as},
    statement::replacement,
};
use tandem_event_path::store::{ChangeLog, ChangeRecord, ChangesRequest, PublishedRow, StoreError};

/// How many pages are read at once.
const PAGES: usize = 8;
/// The fields that show that an entry has changed since a rebuild read it.
const SEEN: [&str; 5] = ["subject", "revision", "eventId", "partition", "offset"];

/// One audit trail in its own collection.
#[derive(Clone, Debug)]
pub struct MongoChangeLog {
    database: Database,
    collection: Collection<RawDocumentBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeDocument {
    #[serde(rename = "_id")]
    id: String,
    subject: String,
    revision: i64,
    event_id: EventId,
    kind: String,
    changed_at: bson::DateTime,
    changed_by: String,
    changed_fields: Vec<String>,
    partition: i32,
    offset: i64,
}

/// The id of an event. It is binary if it is a UUID, as in events of this system.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum EventId {
    Binary(Uuid),
    Text(String),
}

impl From<String> for EventId {
    fn from(id: String) -> Self {
        match uuid::Uuid::parse_str(&id) {
            Ok(binary) if binary.to_string() == id => Self::Binary(self::binary(binary)),
            _ => Self::Text(id),
        }
    }
}

impl From<EventId> for String {
    fn from(id: EventId) -> Self {
        match id {
            EventId::Binary(binary) => uuid(binary).to_string(),
            EventId::Text(text) => text,
        }
    }
}

impl From<ChangeRecord> for ChangeDocument {
    fn from(record: ChangeRecord) -> Self {
        Self {
            id: format!("{}:{}", record.subject, record.revision),
            subject: record.subject,
            revision: record.revision,
            event_id: EventId::from(record.event_id),
            kind: record.kind,
            changed_at: date(record.changed_at),
            changed_by: record.changed_by,
            changed_fields: record.changed_fields,
            partition: record.partition,
            offset: record.offset,
        }
    }
}

impl TryFrom<ChangeDocument> for ChangeRecord {
    type Error = StoreError;

    fn try_from(document: ChangeDocument) -> Result<Self, StoreError> {
        Ok(Self {
            subject: document.subject,
            revision: document.revision,
            event_id: document.event_id.into(),
            kind: document.kind,
            changed_at: time(document.changed_at)?,
            changed_by: document.changed_by,
            changed_fields: document.changed_fields,
            partition: document.partition,
            offset: document.offset,
        })
    }
}

impl MongoChangeLog {
    /// The audit trail with this name, such as `customer.changes`.
    #[must_use]
    pub fn new(store: &MongoStore, name: &str) -> Self {
        Self {
            database: store.database().clone(),
            collection: store.collection(name),
        }
    }

    /// Creates the index if it is missing. Call it until it succeeds.
    ///
    /// # Errors
    /// If the server does not answer, or has another index with this name.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let index = IndexModel::builder()
            .keys(doc! { "subject": 1, "revision": 1 })
            .options(
                IndexOptions::builder()
                    .name("subject,revision".to_owned())
                    .unique(true)
                    .build(),
            )
            .build();
        limited(async { self.collection.create_index(index).await })
            .await
            .map(drop)
    }

    /// Removes documents with the subject and revision of one of these entries, but another `_id`. Returns how many.
    async fn remove_impostors(&self, entries: &[Wanted]) -> Result<u64, StoreError> {
        let mut removed = 0;
        for wanted in entries {
            let entry: ChangeDocument = read(&wanted.document)?;
            let impostor = doc! {
                "subject": &entry.subject,
                "revision": entry.revision,
                "_id": { "$ne": &entry.id },
            };
            removed += limited(async { self.collection.delete_many(impostor).await })
                .await?
                .deleted_count;
        }
        Ok(removed)
    }

    async fn page(&self, request: &ChangesRequest) -> Result<Vec<ChangeRecord>, StoreError> {
        if request.limit == 0 {
            return Ok(Vec::new());
        }
        let filter =
            doc! { "subject": &request.subject, "revision": { "$gt": request.after_revision } };
        let reading = async {
            let cursor = self
                .collection
                .find(filter)
                .sort(doc! { "revision": 1 })
                .limit(i64::try_from(request.limit).unwrap_or(i64::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        limited(reading)
            .await?
            .iter()
            .map(|document| read::<ChangeDocument>(document).and_then(ChangeRecord::try_from))
            .collect()
    }
}

#[async_trait]
impl ChangeLog for MongoChangeLog {
    async fn append(&self, records: Vec<ChangeRecord>) -> Result<(), StoreError> {
        insert_new(
            &self.collection,
            records.into_iter().map(ChangeDocument::from),
        )
        .await
    }

    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError> {
        let in_place = InPlace {
            database: &self.database,
            collection: self.collection.name(),
            shown: doc! {},
            may_stay: |stored: &RawDocument, wanted: &RawDocument| {
                stored.as_bytes() == wanted.as_bytes()
            },
            update: |wanted: &Wanted| {
                replacement(doc! { "_id": &wanted.id }, &wanted.document, true)
            },
        };
        let wanted = |record: &ChangeRecord| {
            let entry = ChangeDocument::from(record.clone());
            Ok(Wanted {
                document: bson::serialize_to_raw_document_buf(&entry).map_err(unwritable)?,
                id: entry.id,
            })
        };
        let first = in_place.put(records, wanted).await?;
        if first.refused.is_empty() {
            return Ok(first.replaced);
        }
        let removed = self.remove_impostors(&first.refused).await?;
        let again = |wanted: &Wanted| Ok(wanted.clone());
        let second = in_place.put(&first.refused, again).await?;
        match second.refused.first() {
            None => Ok(first.replaced + removed),
            Some(wanted) => Err(StoreError::Unavailable(format!(
                "the entry {} is being written by somebody else",
                wanted.id
            ))),
        }
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let filter = match after {
            None => doc! { "subject": { "$gt": "" } },
            Some(seen) => doc! { "$or": [
                { "subject": &seen.id, "revision": { "$gt": seen.revision } },
                { "subject": { "$gt": &seen.id } },
            ] },
        };
        let order = doc! { "subject": 1, "revision": 1 };
        published_page(&self.collection, filter, order, limit, "subject", &SEEN).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let removal = |seen: &PublishedRow| deletion(still_as(seen)?);
        let name = self.collection.name();
        let done = bulk(&self.database, name, Bulk::Delete, seen, removal).await?;
        Ok(done.matched)
    }

    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError> {
        let requests: Vec<ChangesRequest> = requests.to_vec();
        let reads = requests
            .into_iter()
            .map(|request| async move { self.page(&request).await });
        stream::iter(reads).buffered(PAGES).try_collect().await
    }
}
