//! Keeps the replica up to date: a projection of `accounts.customer.change`.

use std::collections::HashSet;

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    data_keys::Opener,
    kafka::message::{Message, Position, Rejection},
    store::StoreError,
};

use super::{
    Replica, ReplicaCustomer,
    event::{self, CustomerChange},
};
use crate::erasure::Forgetting;

/// The projection's name and consumer group.
pub const NAME: &str = "orders-replica";

/// Writes customers' changes into the replica.
pub struct ReplicaProjection {
    replica: Replica,
    opener: Opener,
    forgetting: Forgetting,
}

impl ReplicaProjection {
    /// A projection into this replica, of events that this opens; the orders of those who were erased forget them.
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
impl Projection for ReplicaProjection {
    type Item = CustomerChange;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<CustomerChange, Rejection> {
        event::read(message)
    }

    async fn apply(&self, items: Vec<(Position, CustomerChange)>) -> Result<(), StoreError> {
        let changes = items.into_iter().map(|(_, change)| change).collect();
        let customers = event::open(&self.opener, changes).await?;
        let erased = erased(&customers);
        // The replica first: whoever places an order meanwhile looks at it again afterwards.
        self.replica.take(customers).await?;
        for id in erased {
            self.forgetting.forget(&id).await?;
        }
        Ok(())
    }
}

/// The ids of those who were erased.
pub(super) fn erased(customers: &[ReplicaCustomer]) -> HashSet<String> {
    customers
        .iter()
        .filter(|customer| customer.erased)
        .map(|customer| customer.id.clone())
        .collect()
}
