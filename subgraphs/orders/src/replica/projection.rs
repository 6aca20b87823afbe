//! The projection that keeps the replica up to date from `accounts.customer.change`.

use std::collections::BTreeSet;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tandem_event_path::{
    data_keys::{Keys, Opener, Unopened},
    projection::Projection,
    store::{StoreError, WriteEpoch},
    waiting::Waiting,
};
use tandem_model::message::{Message, Position, Rejection};

use super::{
    Replica, ReplicaCustomer,
    event::{self, CustomerChange},
};
use crate::erasure::Forgetting;

/// The name of the projection and of its consumer group.
pub const NAME: &str = "orders-replica";

/// Writes the changes of customers to the replica.
pub struct ReplicaProjection {
    replica: Replica,
    opener: Opener,
    forgetting: Forgetting,
    waiting: Waiting,
}

/// A customer's change, as it was read or after it was opened.
#[derive(Clone)]
pub enum Replicated {
    /// The change as it was read. It may be sealed.
    Told(Box<CustomerChange>),
    /// The customer after the change.
    Open(Box<ReplicaCustomer>),
}

impl Replicated {
    fn id(&self) -> &str {
        match self {
            Self::Told(change) => &change.id,
            Self::Open(customer) => &customer.id,
        }
    }
}

impl ReplicaProjection {
    /// Creates a projection into this replica. `opener` opens the events, and `forgetting` removes the personal data
    /// from the orders of erased customers. An event that cannot be opened waits in `waiting`.
    #[must_use]
    pub fn new(replica: Replica, opener: Opener, forgetting: Forgetting, waiting: Waiting) -> Self {
        Self {
            replica,
            opener,
            forgetting,
            waiting,
        }
    }

    /// The customers of these items.
    ///
    /// # Errors
    /// When an item was not opened before and cannot be opened now.
    async fn customers(
        &self,
        items: Vec<(Position, Replicated)>,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let items: Vec<Replicated> = items.into_iter().map(|(_, item)| item).collect();
        let keys = self.keys(&items).await?;
        let customers = items.into_iter().map(|item| self.customer(item, &keys));
        customers
            .collect::<Result<_, _>>()
            .map_err(|unopened| StoreError::Unavailable(unopened.to_string()))
    }

    fn customer(&self, item: Replicated, keys: &Keys) -> Result<ReplicaCustomer, Unopened> {
        match item {
            Replicated::Open(customer) => Ok(*customer),
            Replicated::Told(change) => {
                event::open_one(*change, keys, self.opener.clock().now().into())
            }
        }
    }

    async fn take(&self, customers: Vec<ReplicaCustomer>) -> Result<(), StoreError> {
        let erased = erased(&customers);
        // The replica is written first. A command that places an order meanwhile reads the replica again afterwards.
        self.replica.take(customers).await?;
        for id in erased {
            self.forgetting.forget(&id).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Projection for ReplicaProjection {
    type Item = Replicated;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<Replicated, Rejection> {
        event::read(message).map(|change| Replicated::Told(Box::new(change)))
    }

    fn subject<'a>(&self, item: &'a Replicated) -> &'a str {
        item.id()
    }

    fn changed_at(&self, item: &Replicated) -> Option<DateTime<Utc>> {
        match item {
            Replicated::Told(_) => None,
            Replicated::Open(customer) => Some(customer.changed_at.as_datetime()),
        }
    }

    fn settles(&self, item: &Replicated) -> bool {
        match item {
            Replicated::Told(change) => change.is_erasure(),
            Replicated::Open(customer) => customer.erased,
        }
    }

    fn waiting(&self) -> Option<&Waiting> {
        Some(&self.waiting)
    }

    async fn keys(&self, items: &[Replicated]) -> Result<Keys, StoreError> {
        let sealed = items.iter().filter_map(|item| match item {
            Replicated::Told(change) => change.sealed_subject(),
            Replicated::Open(_) => None,
        });
        self.opener.keys_of(&sealed.collect()).await
    }

    fn open(&self, item: Replicated, keys: &Keys) -> Result<Replicated, Unopened> {
        let customer = self.customer(item, keys)?;
        Ok(Replicated::Open(Box::new(customer)))
    }

    async fn apply(&self, items: Vec<(Position, Replicated)>) -> Result<(), StoreError> {
        let customers = self.customers(items).await?;
        self.take(customers).await
    }

    async fn apply_early(
        &self,
        items: Vec<(Position, Replicated)>,
    ) -> Result<Option<WriteEpoch>, StoreError> {
        let customers = self.customers(items).await?;
        if customers.iter().any(|customer| customer.erased) {
            // The personal data is removed from their orders next. After that, no crash may bring the customers back,
            // so the write must be durable.
            return self.take(customers).await.map(|()| None);
        }
        self.replica.apply_early(customers).await
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        self.replica.store().confirm_durable(epoch).await
    }
}

/// The ids of the erased customers.
pub(super) fn erased(customers: &[ReplicaCustomer]) -> BTreeSet<String> {
    customers
        .iter()
        .filter(|customer| customer.erased)
        .map(|customer| customer.id.clone())
        .collect()
}
