//! The customers' data keys in the replica.

use std::{collections::HashSet, sync::Arc};

use async_trait::async_trait;
use tandem_event_path::{
    data_keys::{Known, StoredKeys},
    store::StoreError,
};

use super::ReplicaStore;

/// The customers' keys in the store of orders. The replica holds each key together with its customer.
pub struct ReplicaKeys(pub Arc<dyn ReplicaStore>);

#[async_trait]
impl StoredKeys for ReplicaKeys {
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        let ids: Vec<String> = subjects.iter().cloned().collect();
        let mut known = Known::default();
        for customer in self.0.get_many(&ids).await?.into_iter().flatten() {
            if customer.erased {
                known.erased.insert(customer.id);
            } else if let Some(wrapped) = customer.data_key {
                known.wrapped.insert(customer.id, wrapped);
            }
        }
        Ok(known)
    }
}
