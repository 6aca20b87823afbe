//! What the MongoDB store remembers of itself: one document a name.

use async_trait::async_trait;
use mongodb::{Collection, bson::doc};
use serde::{Deserialize, Serialize};

use super::{MongoStore, connection::limited};
use crate::store::{Registry, StoreError};

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
}

#[async_trait]
impl Registry for MongoRegistry {
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError> {
        let found = limited(async { self.collection.find_one(doc! { "_id": name }).await }).await?;
        Ok(found.map(|entry| entry.value))
    }

    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError> {
        // Two instances that remember at once: one inserts, the other finds that document. An upsert on `_id` that loses
        // the race is retried by the server itself.
        let update = doc! { "$setOnInsert": { "value": value } };
        limited(async {
            self.collection
                .update_one(doc! { "_id": name }, update)
                .upsert(true)
                .await
        })
        .await?;
        Ok(self.recall(name).await?.unwrap_or_else(|| value.to_owned()))
    }
}
