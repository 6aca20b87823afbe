//! The replica made again from the log.

use std::collections::HashMap;

use async_trait::async_trait;
use tandem_kit::{
    data_keys::{DataKey, Opener},
    kafka::message::Message,
    rebuild::{Heard, Keeps, Rebuilt},
    store::{Settled, StoreError},
};

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
}

impl RebuildReplica {
    /// Rebuilds this replica, of events that this opens; the orders of those who were erased forget them.
    #[must_use]
    pub fn new(replica: Replica, opener: Opener, forgetting: Forgetting) -> Self {
        Self {
            replica,
            opener,
            forgetting,
        }
    }
}

#[async_trait]
impl Rebuilt for RebuildReplica {
    type Told = CustomerChange;
    type Keys = HashMap<String, (DataKey, String)>;
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

    fn hear(&self, message: &Message) -> Option<Heard<CustomerChange>> {
        let told = event::read(message).ok()?;
        Some(Heard {
            id: told.id.clone(),
            revision: told.revision,
            told,
        })
    }

    async fn keys(&self, told: &[&CustomerChange]) -> Result<Self::Keys, StoreError> {
        let sealed = told
            .iter()
            .filter_map(|change| change.sealed_subject())
            .collect();
        self.opener.keys_of(&sealed).await
    }

    fn open(&self, told: CustomerChange, keys: &Self::Keys) -> Option<ReplicaCustomer> {
        event::open_one(told, keys)
    }

    async fn write(&self, rows: &[ReplicaCustomer]) -> Result<u64, StoreError> {
        // The replica first: whoever places an order meanwhile looks at it again afterwards.
        self.replica.take_again(rows).await?;
        for id in erased(rows) {
            self.forgetting.forget(&id).await?;
        }
        Ok(0)
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        self.replica.store().settled(after, limit).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        self.replica.store().remove(seen).await
    }

    async fn set_back(&self, rows: &[(Settled, ReplicaCustomer)]) -> Result<u64, StoreError> {
        self.replica.store().set_back(rows).await
    }
}
