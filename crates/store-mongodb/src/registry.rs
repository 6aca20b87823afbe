//! What the MongoDB store remembers about itself: one document for each name.

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::{Collection, bson::doc};
use serde::{Deserialize, Serialize};

use super::{MongoStore, connection::limited};
use tandem_event_path::store::{Registry, StoreError};

/// The collection `registry`.
#[derive(Clone, Debug)]
pub struct MongoRegistry {
    collection: Collection<Entry>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Entry {
    #[serde(rename = "_id")]
    name: String,
    value: String,
}

impl MongoRegistry {
    /// The registry of this database.
    #[must_use]
    pub fn new(store: &MongoStore) -> Self {
        Self {
            collection: store.database().collection("registry"),
        }
    }

    /// Sets a value under a name with this operator, whether the name exists or not. If two instances do so at once,
    /// one inserts and the other finds that document. The server itself retries an upsert on `_id` that loses the race.
    async fn upsert(&self, name: &str, operator: &str, value: &str) -> Result<(), StoreError> {
        let update = doc! { operator: { "value": value } };
        let writing = async {
            self.collection
                .update_one(doc! { "_id": name }, update)
                .upsert(true)
                .await
        };
        limited(writing).await.map(drop)
    }
}

#[async_trait]
impl Registry for MongoRegistry {
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = limited(async { self.collection.find_one(doc! { "_id": name }).await }).await?;
        Ok(found.map(|entry| entry.value))
    }

    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError> {
        self.upsert(name, "$setOnInsert", value).await?;
        Ok(self.recall(name).await?.unwrap_or_else(|| value.to_owned()))
    }

    async fn note(&self, name: &str, value: &str) -> Result<(), StoreError> {
        self.upsert(name, "$set", value).await
    }

    async fn forget(&self, name: &str) -> Result<(), StoreError> {
        limited(async { self.collection.delete_one(doc! { "_id": name }).await }).await?;
        Ok(())
    }

    async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError> {
        // The greatest text with this prefix is the prefix followed by the greatest character.
        let range = doc! { "$gte": prefix, "$lt": format!("{prefix}\u{10ffff}") };
        let found: Vec<Entry> = limited(async {
            self.collection
                .find(doc! { "_id": range })
                .await?
                .try_collect()
                .await
        })
        .await?;
        Ok(found
            .into_iter()
            .map(|entry| (entry.name, entry.value))
            .collect())
    }
}
