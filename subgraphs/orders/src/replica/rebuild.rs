//! Rebuilds the replica from the log.

use std::collections::HashMap;

use async_trait::async_trait;
use tandem_event_path::{
    data_keys::{Keys, Opener, Unopened},
    rebuild::{Decoded, Differing, Entries, Keeps, Rebuilt, content_of},
    store::{PublishedRow, StoreError},
    waiting::Waiting,
};
use tandem_model::message::Message;

use super::{
    Replica, ReplicaCustomer,
    event::{self, CustomerChange},
    projection::{NAME, erased},
};
use crate::erasure::Forgetting;

/// Rebuilds the replica.
pub struct RebuildReplica {
    replica: Replica,
    opener: Opener,
    forgetting: Forgetting,
    waiting: Waiting,
}

impl RebuildReplica {
    /// Creates a rebuild of this replica. `opener` opens the events, and `forgetting` removes the personal data from
    /// the orders of erased customers. An event that cannot be opened waits in `waiting`.
    #[must_use]
    pub fn new(replica: Replica, opener: Opener, forgetting: Forgetting, waiting: Waiting) -> Self {
        Self {
            replica,
            opener,
            forgetting,
            waiting,
        }
    }
}

#[async_trait]
impl Rebuilt for RebuildReplica {
    type Event = CustomerChange;
    type Keys = Keys;
    type Row = ReplicaCustomer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn topic(&self) -> &'static str {
        event::TOPIC
    }

    fn keeps(&self) -> Keeps {
        Keeps::Newest
    }

    fn decode(&self, message: &Message) -> Option<Decoded<CustomerChange>> {
        let change = event::read(message).ok()?;
        Some(Decoded {
            id: change.id.clone(),
            revision: change.revision,
            event: change,
        })
    }

    async fn keys(&self, changes: &[&CustomerChange]) -> Result<Self::Keys, StoreError> {
        let sealed = changes
            .iter()
            .filter_map(|change| change.sealed_subject())
            .collect();
        self.opener.keys_of(&sealed).await
    }

    fn open(&self, change: CustomerChange, keys: &Keys) -> Result<ReplicaCustomer, Unopened> {
        event::open_one(change, keys, self.opener.clock().now().into())
    }

    fn waiting(&self) -> Option<&Waiting> {
        Some(&self.waiting)
    }

    async fn revisions(&self, ids: &[String]) -> Result<HashMap<String, i64>, StoreError> {
        let stored = self.replica.store().get_many(ids).await?;
        let stored = stored.into_iter().flatten();
        Ok(stored.map(|stored| (stored.id, stored.revision)).collect())
    }

    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let ids: Vec<String> = seen.iter().map(|seen| seen.id.clone()).collect();
        let stored = self.replica.store().get_many(&ids).await?;
        let contents = stored.into_iter().map(|stored| content_of(&stored?));
        Ok(contents.collect())
    }

    fn row_of(&self, content: &[u8]) -> Result<(String, i64, ReplicaCustomer), serde_json::Error> {
        let row: ReplicaCustomer = serde_json::from_slice(content)?;
        Ok((row.id.clone(), row.revision, row))
    }

    async fn write(&self, rows: &[ReplicaCustomer], _: Entries) -> Result<Differing, StoreError> {
        // The replica is written first. A command that places an order meanwhile reads the replica again afterwards.
        self.replica.take_again(rows).await?;
        for id in erased(rows) {
            self.forgetting.forget(&id).await?;
        }
        Ok(Differing::default())
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        self.replica.store().published(after, limit).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        self.replica.store().remove(seen).await
    }

    async fn revert(&self, rows: &[(PublishedRow, ReplicaCustomer)]) -> Result<u64, StoreError> {
        self.replica.store().revert(rows).await
    }
}
