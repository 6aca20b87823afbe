//! The audit trail in MongoDB: one document an entry, its `_id` made of subject and revision, so that the first one stays.

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use mongodb::{
    Collection, IndexModel,
    bson::{self, RawDocumentBuf, Uuid, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    connection::{SERVER_LIMIT, insert_new, limited},
    documents::{binary, date, read, time, uuid},
};
use crate::store::{ChangeLog, ChangeRecord, ChangesRequest, StoreError};

/// Pages read at once.
const PAGES: usize = 8;

/// One audit trail in a collection of its own.
#[derive(Clone, Debug)]
pub struct MongoChangeLog {
    collection: Collection<RawDocumentBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeDocument {
    #[serde(rename = "_id")]
    id: String,
    subject: String,
    revision: i64,
    event_id: Uuid,
    kind: String,
    changed_at: bson::DateTime,
    changed_by: String,
    changed_fields: Vec<String>,
    partition: i32,
    offset: i64,
}

impl From<ChangeRecord> for ChangeDocument {
    fn from(record: ChangeRecord) -> Self {
        Self {
            id: format!("{}:{}", record.subject, record.revision),
            subject: record.subject,
            revision: record.revision,
            event_id: binary(record.event_id),
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
            event_id: uuid(document.event_id),
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
    /// The audit trail of that name, such as `customer.changes`.
    #[must_use]
    pub fn new(store: &MongoStore, name: &str) -> Self {
        Self {
            collection: store.collection(name),
        }
    }

    /// Makes the index if it is missing. To be called until it succeeds.
    ///
    /// # Errors
    /// When the server does not answer, or has another index under this name.
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
