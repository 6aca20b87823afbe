//! Keeps the replica up to date: a projection of `accounts.customer.change`.

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    kafka::message::{Message, Position, Rejection},
    store::StoreError,
};

use super::{Replica, ReplicaCustomer, event};

/// The projection's name and consumer group.
pub const NAME: &str = "orders-replica";

/// Writes customers' changes into the replica.
pub struct ReplicaProjection {
    replica: Replica,
}

impl ReplicaProjection {
    /// A projection into this replica.
    #[must_use]
    pub fn new(replica: Replica) -> Self {
        Self { replica }
    }
}

#[async_trait]
impl Projection for ReplicaProjection {
    type Item = ReplicaCustomer;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<ReplicaCustomer, Rejection> {
        event::read(message)
    }

    async fn apply(&self, items: Vec<(Position, ReplicaCustomer)>) -> Result<(), StoreError> {
        let customers = items.into_iter().map(|(_, customer)| customer).collect();
        self.replica.take(customers).await
    }

    async fn apply_again(&self, items: Vec<(Position, ReplicaCustomer)>) -> Result<(), StoreError> {
        let customers = items.into_iter().map(|(_, customer)| customer).collect();
        self.replica.take_again(customers).await
    }
}
