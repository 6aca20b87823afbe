//! The replica: customers as orders knows them, kept up to date from the events of accounts.
//!
//! The replica answers while accounts is down. Events may be repeated or come late. The newest revision wins, in
//! whatever order they come.
//!
//! `event` reads the event of accounts, `projection` applies it, and `rebuild` restores the replica from the log.
//! [`ReplicaStore`] is the port, `mongo` and `embedded` are its adapters, and `contract` is the suite that both pass.
//! `waiting` is for readers that wait for a revision.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_event_path::fault::{self, Fault};
use tandem_event_path::store::{PublishedRow, StoreError, WriteEpoch};
use tandem_runtime::{backoff::Backoff, clock::Clock};

#[cfg(any(test, feature = "contract-suite"))]
pub mod contract;
pub mod customer;
pub mod embedded;
pub mod event;
pub mod keys;
pub mod mongo;
pub mod progress;
pub mod projection;
pub mod rebuild;
#[cfg(test)]
mod tests;
mod waiting;

pub use customer::{Contact, Name, ReplicaCustomer};
use waiting::Waiting;

/// The collection that holds the replica.
pub const COLLECTION: &str = "customer.orders";

/// The longest time that a reader waits for a revision.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The pauses between two reads of the store while waiting, because another instance may write the revision.
const LOOKS: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));

/// Which stored revisions a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Only older ones. For the live path, on which the same event may come twice.
    Older,
    /// The same revision too. For a rebuild: afterwards every row holds the present reading of its event.
    OlderOrSame,
}

/// Stores replicated customers.
#[async_trait]
pub trait ReplicaStore: Send + Sync + 'static {
    /// Writes customers, each id at most once, over the revisions that they replace. A newer revision is never
    /// replaced.
    ///
    /// # Errors
    /// When the store does not answer. Writing the same customers again does no harm.
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError>;

    /// Writes customers, each id at most once, over older revisions, without waiting until the write is durable.
    /// Readers see it when this returns. Returns the epoch of the write, or `None` if the write is durable already.
    ///
    /// # Errors
    /// When the store does not answer. Writing the same customers again does no harm.
    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError>;

    /// Makes the early writes of `epoch` durable. Returns false if the store has begun another epoch: those writes may
    /// be lost.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError>;

    /// At most `limit` rows after `after`, ordered by id. Empty when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes rows, each only if it has not changed since it was read. Returns how many. The removal is durable when
    /// this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some rows may be removed then, and removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Replaces newer customers, each only if its row has not changed since it was read. Returns how many. The write is
    /// durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some rows may be replaced then, and replacing them again does no harm.
    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError>;

    /// The customers with these ids, in the given order, with `None` for missing ones. This is one batched read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError>;

    /// At most `limit` customers with ids greater than `after`, ordered by id. Fewer if they are larger than
    /// [`PAGE_BYTES`](tandem_event_path::store::PAGE_BYTES) together. Empty when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError>;

    /// Checks that the store answers.
    ///
    /// # Errors
    /// When it does not.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// The result of waiting for a revision.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited {
    /// The customer, at that revision or a newer one.
    Arrived(Box<ReplicaCustomer>),
    /// The time is over. The revision that the replica holds is older, or there is none.
    Behind(Option<i64>),
}

/// The replica, with the readers that wait for it. Clones share both.
#[derive(Clone)]
pub struct Replica {
    store: Arc<dyn ReplicaStore>,
    waiting: Arc<Waiting>,
    clock: Clock,
}

impl Replica {
    /// Creates a replica in this store.
    #[must_use]
    pub fn new(store: Arc<dyn ReplicaStore>) -> Self {
        Self {
            store,
            waiting: Arc::default(),
            clock: Clock::default(),
        }
    }

    /// The same replica with this clock instead of the operating system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store of the replica.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ReplicaStore> {
        &self.store
    }

    /// Writes customers, and then wakes the readers that wait for them. Of several revisions of a customer, the newest
    /// is written.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn take(&self, customers: Vec<ReplicaCustomer>) -> Result<(), StoreError> {
        let newest = newest(customers);
        self.store.upsert(&newest, Replaces::Older).await?;
        self.wake(&newest);
        Ok(())
    }

    /// Like [`Self::take`], without waiting until the write is durable. See [`ReplicaStore::apply_early`].
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn apply_early(
        &self,
        customers: Vec<ReplicaCustomer>,
    ) -> Result<Option<WriteEpoch>, StoreError> {
        let newest = newest(customers);
        let epoch = self.store.apply_early(&newest).await?;
        self.wake(&newest);
        Ok(epoch)
    }

    /// Writes customers, each id at most once, also over the same revision. Then wakes the readers that wait for them.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn take_again(&self, customers: &[ReplicaCustomer]) -> Result<(), StoreError> {
        self.store.upsert(customers, Replaces::OlderOrSame).await?;
        self.wake(customers);
        Ok(())
    }

    fn wake(&self, customers: &[ReplicaCustomer]) {
        for customer in customers {
            self.waiting.arrived(customer);
        }
    }

    /// One customer.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self, id: &str) -> Result<Option<ReplicaCustomer>, StoreError> {
        let found = self.store.get_many(&[id.to_owned()]).await?;
        Ok(found.into_iter().next().flatten())
    }

    /// Waits until the replica has the customer at `revision` or newer, for at most `limit`.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn wait_for_revision(
        &self,
        id: &str,
        revision: i64,
        limit: Duration,
    ) -> Result<Waited, StoreError> {
        let deadline = self.clock.instant() + limit;
        let mut waiter = self.waiting.join(id);
        let mut pauses = LOOKS.pauses(&self.clock);
        loop {
            let found = self.get(id).await?;
            let held = found.as_ref().map(|customer| customer.revision);
            if let Some(customer) = found
                && (customer.revision >= revision || fault::is_on(Fault::MinimalRevisionIgnored))
            {
                return Ok(Waited::Arrived(Box::new(customer)));
            }
            let now = self.clock.instant();
            if now >= deadline {
                return Ok(Waited::Behind(held));
            }
            let look_again = pauses.next_pause().min(deadline - now);
            let arrival = self.clock.timeout(look_again, waiter.arrival_of(revision));
            // A write of this instance arrives here. Otherwise the pause ends, and the store is read again, because
            // another instance may have written.
            if let Ok(Some(customer)) = arrival.await {
                return Ok(Waited::Arrived(Box::new(Arc::unwrap_or_clone(customer))));
            }
        }
    }
}

/// Keeps the newest of several revisions of each customer.
fn newest(customers: Vec<ReplicaCustomer>) -> Vec<ReplicaCustomer> {
    let mut newest: HashMap<String, ReplicaCustomer> = HashMap::with_capacity(customers.len());
    for customer in customers {
        let known = newest.get(&customer.id).map_or(0, |known| known.revision);
        if customer.revision > known {
            newest.insert(customer.id.clone(), customer);
        }
    }
    newest.into_values().collect()
}
