//! The replica: customers as orders knows them, kept up to date from accounts' events.
//!
//! It answers while accounts is down. Events may come twice or late: the newest revision wins, whatever the order.
//!
//! `event` reads accounts' event, `projection` applies it, `rebuild` restores the replica from the log.
//! [`ReplicaStore`] is the port, `mongo` and `embedded` are its adapters, and `contract` is the suite that both pass.
//! `waiting` is for readers that ask for a revision.

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

/// How long a reader waits for a revision at most.
pub const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The pauses between two looks at the store: another instance may have written it.
const LOOKS: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(200));

/// Which stored revisions a write replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaces {
    /// Only older ones: the live path, in which the same event may come twice.
    Older,
    /// The same one too: a rebuild, after which every row holds what its event is read as today.
    OlderOrSame,
}

/// Keeps replicated customers.
#[async_trait]
pub trait ReplicaStore: Send + Sync + 'static {
    /// Writes customers, each id at most once, over what they replace; a newer revision always stays.
    ///
    /// # Errors
    /// When the store does not answer; writing the same again then does no harm.
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError>;

    /// Writes customers, each id at most once, over older ones, without waiting until that is durable: readers see it when this
    /// returns. Answers the epoch in which it was written, `None` if it is durable.
    ///
    /// # Errors
    /// When the store does not answer; writing the same again then does no harm.
    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError>;

    /// Makes durable what was shown in `epoch`. Answers false if the store has begun another epoch: what was shown may be gone.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError>;

    /// At most `limit` rows behind `after`, in order of id; none when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes rows, each only if it is still as it was seen. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be removed, and removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts customers in the place of newer ones, each only if its row is still as it was seen. Returns how many. Durable when
    /// this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be set back, and setting them back again does no harm.
    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError>;

    /// The customers with these ids, in the order asked for, `None` for those that are not there. One batched read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError>;

    /// At most `limit` customers with ids greater than `after`, in order of id; fewer when they have more than
    /// [`PAGE_BYTES`](tandem_event_path::store::PAGE_BYTES) together, none when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError>;

    /// Answers when the store is there.
    ///
    /// # Errors
    /// When it is not.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// What waiting for a revision came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Waited {
    /// The customer, at that revision or a newer one.
    Arrived(Box<ReplicaCustomer>),
    /// What the replica holds when the time is over: an older revision, or nothing.
    Behind(Option<i64>),
}

/// The replica with those who wait for it. Clones share both.
#[derive(Clone)]
pub struct Replica {
    store: Arc<dyn ReplicaStore>,
    waiting: Arc<Waiting>,
    clock: Clock,
}

impl Replica {
    /// A replica in this store.
    #[must_use]
    pub fn new(store: Arc<dyn ReplicaStore>) -> Self {
        Self {
            store,
            waiting: Arc::default(),
            clock: Clock::default(),
        }
    }

    /// The same with another clock than the operating system's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The store that it is kept in.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn ReplicaStore> {
        &self.store
    }

    /// Writes customers; of several revisions of one the newest. Then wakes those who wait for them.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn take(&self, customers: Vec<ReplicaCustomer>) -> Result<(), StoreError> {
        let newest = newest(customers);
        self.store.upsert(&newest, Replaces::Older).await?;
        self.wake(&newest);
        Ok(())
    }

    /// The same as [`Self::take`], without waiting until it is durable: see [`ReplicaStore::apply_early`].
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

    /// Writes customers, each id at most once, also over the same revision. Then wakes those who wait for them.
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

    /// Waits until the customer is there at `revision` or newer, at most `limit`.
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
            // What this instance has written is at hand; else it is time to look whether another one has written it.
            if let Ok(Some(customer)) = arrival.await {
                return Ok(Waited::Arrived(Box::new(Arc::unwrap_or_clone(customer))));
            }
        }
    }
}

/// Of several revisions of a customer the newest.
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
