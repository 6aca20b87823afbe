//! Keeps the replica up to date: a projection of `accounts.customer.change`.

use std::collections::HashSet;

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    data_keys::Opener,
    kafka::message::{Message, Position, Rejection},
    store::{StoreError, Term},
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

    async fn open(
        &self,
        items: Vec<(Position, CustomerChange)>,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let changes = items.into_iter().map(|(_, change)| change).collect();
        event::open(&self.opener, changes).await
    }

    async fn take(&self, customers: Vec<ReplicaCustomer>) -> Result<(), StoreError> {
        let erased = erased(&customers);
        // The replica first: whoever places an order meanwhile looks at it again afterwards.
        self.replica.take(customers).await?;
        for id in erased {
            self.forgetting.forget(&id).await?;
        }
        Ok(())
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
        let customers = self.open(items).await?;
        self.take(customers).await
    }

    async fn show(
        &self,
        items: Vec<(Position, CustomerChange)>,
    ) -> Result<Option<Term>, StoreError> {
        let customers = self.open(items).await?;
        if customers.iter().any(|customer| customer.erased) {
            // Their orders forget them next, and no crash may bring them back after that.
            return self.take(customers).await.map(|()| None);
        }
        self.replica.show(customers).await
    }

    async fn keep(&self, term: &Term) -> Result<bool, StoreError> {
        self.replica.store().keep(term).await
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
