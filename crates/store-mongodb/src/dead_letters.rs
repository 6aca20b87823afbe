//! Dead letters in MongoDB, one document each. Its `_id` consists of consumer, topic, partition and offset, so that
//! each letter is stored once.

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{self, Binary, Document, RawDocumentBuf, doc, spec::BinarySubtype},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    connection::{SERVER_LIMIT, insert_new, limited},
    documents::{date, read, time},
};
use tandem_event_path::store::{
    DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId, StoreError,
};

/// The dead letters of all consumers of a service.
#[derive(Clone, Debug)]
pub struct MongoDeadLetters {
    collection: Collection<RawDocumentBuf>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LetterDocument {
    #[serde(rename = "_id")]
    id: String,
    consumer: String,
    topic: String,
    partition: i32,
    offset: i64,
    key: String,
    reason: String,
    parked_at: bson::DateTime,
    headers: Vec<HeaderDocument>,
    payload: Option<Binary>,
    #[serde(default)]
    is_cut: bool,
}

#[derive(Serialize, Deserialize)]
struct HeaderDocument {
    name: String,
    value: Binary,
}

#[derive(Deserialize)]
struct KeyDocument {
    #[serde(rename = "_id")]
    key: String,
}

fn bytes(bytes: Vec<u8>) -> Binary {
    Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    }
}

fn name(id: &LetterId) -> String {
    let LetterId {
        consumer,
        topic,
        partition,
        offset,
    } = id;
    // The names of topics contain no colon.
    format!("{consumer}:{topic}:{partition}:{offset}")
}

fn of_filter(filter: &DeadLetterFilter) -> Document {
    let mut all = Document::new();
    if let Some(consumer) = &filter.consumer {
        all.insert("consumer", consumer);
    }
    if let Some(key) = &filter.key {
        all.insert("key", key);
    }
    all
}

/// The filter for letters after this one, in the order of consumer, topic, partition and offset.
fn behind(id: &LetterId) -> Document {
    let LetterId {
        consumer,
        topic,
        partition,
        offset,
    } = id;
    doc! { "$or": [
        { "consumer": { "$gt": consumer } },
        { "consumer": consumer, "topic": { "$gt": topic } },
        { "consumer": consumer, "topic": topic, "partition": { "$gt": partition } },
        { "consumer": consumer, "topic": topic, "partition": partition, "offset": { "$gt": offset } },
    ] }
}

impl From<DeadLetter> for LetterDocument {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: name(&letter.id()),
            consumer: letter.consumer,
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            key: letter.key,
            reason: letter.reason,
            parked_at: date(letter.parked_at),
            headers: letter
                .headers
                .into_iter()
                .map(|(name, value)| HeaderDocument {
                    name,
                    value: bytes(value),
                })
                .collect(),
            payload: letter.payload.map(bytes),
            is_cut: letter.is_cut,
        }
    }
}

impl TryFrom<LetterDocument> for DeadLetter {
    type Error = StoreError;

    fn try_from(document: LetterDocument) -> Result<Self, StoreError> {
        Ok(Self {
            consumer: document.consumer,
            topic: document.topic,
            partition: document.partition,
            offset: document.offset,
            key: document.key,
            reason: document.reason,
            parked_at: time(document.parked_at)?,
            headers: document
                .headers
                .into_iter()
                .map(|header| (header.name, header.value.bytes))
                .collect(),
            payload: document.payload.map(|payload| payload.bytes),
            is_cut: document.is_cut,
        })
    }
}

impl MongoDeadLetters {
    /// The dead letters in the collection with this name, such as `dead.letters`.
    #[must_use]
    pub fn new(store: &MongoStore, name: &str) -> Self {
        Self {
            collection: store.collection(name),
        }
    }

    /// Creates the missing indexes. Call it until it succeeds.
    ///
    /// # Errors
    /// If the server does not answer, or has other indexes with these names.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned()).build();
        let indexes = [
            IndexModel::builder()
                .keys(doc! { "consumer": 1, "topic": 1, "partition": 1, "offset": 1 })
                .options(named("place"))
                .build(),
            IndexModel::builder()
                .keys(doc! { "consumer": 1, "key": 1 })
                .options(named("key"))
                .build(),
            IndexModel::builder()
                .keys(doc! { "key": 1 })
                .options(named("key of any"))
                .build(),
        ];
        limited(async { self.collection.create_indexes(indexes).await })
            .await
            .map(drop)
    }
}

#[async_trait]
impl DeadLetterStore for MongoDeadLetters {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        insert_new(
            &self.collection,
            letters.into_iter().map(LetterDocument::from),
        )
        .await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut wanted = of_filter(filter);
        if let Some(after) = after {
            wanted.extend(behind(after));
        }
        let reading = async {
            let cursor = self
                .collection
                .find(wanted)
                .sort(doc! { "consumer": 1, "topic": 1, "partition": 1, "offset": 1 })
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        limited(reading)
            .await?
            .iter()
            .map(|document| read::<LetterDocument>(document).and_then(DeadLetter::try_from))
            .collect()
    }

    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError> {
        let reading = async {
            self.collection
                .find_one(doc! { "_id": name(id) })
                .max_time(SERVER_LIMIT)
                .await
        };
        let found = limited(reading).await?;
        found
            .map(|document| read::<LetterDocument>(&document).and_then(DeadLetter::try_from))
            .transpose()
    }

    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        let counting = async {
            self.collection
                .count_documents(of_filter(filter))
                .max_time(SERVER_LIMIT)
                .await
        };
        limited(counting).await
    }

    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError> {
        let pipeline = [
            doc! { "$match": { "consumer": consumer } },
            doc! { "$group": { "_id": "$key" } },
        ];
        let reading = async {
            let cursor = self
                .collection
                .aggregate(pipeline)
                .max_time(SERVER_LIMIT)
                .with_type::<KeyDocument>()
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        Ok(limited(reading)
            .await?
            .into_iter()
            .map(|found| found.key)
            .collect())
    }

    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError> {
        let name = name(id);
        let deleted =
            limited(async { self.collection.delete_one(doc! { "_id": name }).await }).await?;
        Ok(deleted.deleted_count > 0)
    }

    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError> {
        let of_key = doc! { "consumer": consumer, "key": key };
        let deleted = limited(async { self.collection.delete_many(of_key).await }).await?;
        Ok(deleted.deleted_count)
    }
}
