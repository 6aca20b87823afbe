//! The customers' data keys in the store of accounts. If the topic of keys loses records, they are published again from
//! here.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_assembly::admin::keys::Heals;
use tandem_event_path::{
    data_keys::{DataKey, KeyRing, Known, StoredKeys},
    log_memory::LogWatch,
    sealing::Sealer,
    store::{AggregateStore, ChangeLog, ChangesRequest, Filter, PageRequest, StoreError},
};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::{backoff::Backoff, shutdown::Shutdown};
use tokio::sync::Mutex;

use crate::domain::Customer;

/// The service that claims the topics.
const SERVICE: &str = "accounts";
/// The number of customers that are checked together.
const PAGE: usize = 1_000;
/// The pauses after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// The customers' keys in the store of accounts.
pub struct CustomerKeys(pub Arc<dyn AggregateStore<Customer>>);

fn known<'a>(customers: impl Iterator<Item = &'a Customer>) -> Known {
    let mut known = Known::default();
    for customer in customers {
        let id = customer.id().to_owned();
        if customer.is_erased() {
            known.erased.insert(id);
        } else if let Some(wrapped) = customer.data_key() {
            known.wrapped.insert(id, wrapped.to_owned());
        }
    }
    known
}

#[async_trait]
impl StoredKeys for CustomerKeys {
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        let ids: Vec<String> = subjects.iter().cloned().collect();
        let stored = self.0.get_many(&ids).await?;
        Ok(known(stored.iter().flatten().map(|stored| &stored.state)))
    }
}

/// Publishes again what the topic of keys has lost: the claim of the topics, the customers' keys, and the tombstones of
/// erased customers. A published key also counts as lost if the topic holds a worse record in its place, such as an
/// older record that was written again. Clones share the same state.
#[derive(Clone)]
pub struct KeyHealing {
    customers: Arc<dyn AggregateStore<Customer>>,
    changes: Arc<dyn ChangeLog>,
    topic: KeyRing,
    sealer: Sealer,
    /// Only one healing runs at a time. A second one would not yet see what the first has published.
    turn: Arc<Mutex<()>>,
}

impl KeyHealing {
    /// Heals this topic. `customers` hold the keys, `changes` is their audit trail, and `sealer` wraps the keys.
    #[must_use]
    pub fn new(
        customers: Arc<dyn AggregateStore<Customer>>,
        changes: Arc<dyn ChangeLog>,
        topic: KeyRing,
        sealer: Sealer,
    ) -> Self {
        Self {
            customers,
            changes,
            topic,
            sealer,
            turn: Arc::default(),
        }
    }

    /// Heals in the background, and again whenever the topic was created again. The first run waits until the store has
    /// read everything in the log and the topic answers. The reason: a store that was restored from a backup holds the
    /// keys of customers who were erased since, and learns of their erasure only from the log.
    pub fn start(&self, watch: &LogWatch, shutdown: &Shutdown) {
        let (healing, watch, stop) = (self.clone(), watch.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let working = async {
                watch.caught_up().await;
                let mut replaced = healing.topic.replaced();
                loop {
                    let healed = stop.retry(
                        BACKOFF,
                        || healing.heal(),
                        |error, pause| {
                            tracing::warn!(%error, ?pause, "whether the topic of keys is whole cannot be told yet; trying again");
                        },
                    );
                    if healed.await.is_none() || replaced.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                biased;
                () = stop.requested() => {}
                () = working => {}
            }
        });
    }
}

#[async_trait]
impl Heals for KeyHealing {
    async fn heal(&self) -> Result<u64, StoreError> {
        let _turn = self.turn.lock().await;
        if self.topic.publish_lost_claim(SERVICE).await? {
            tracing::warn!(
                "the topic of keys lacked the claim of the topics; it was published again"
            );
        }
        let mut published = 0;
        let mut after = None;
        loop {
            let request = PageRequest {
                filter: Filter::all(),
                after: after.take(),
                limit: PAGE,
            };
            let pages = self.customers.pages(&[request]).await?;
            let page: Vec<Customer> = pages.into_iter().flatten().collect();
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id().to_owned());
            published += self.heal_some(&page).await?;
        }
        if published > 0 {
            tracing::warn!(
                published,
                "the topic of keys lacked what the store holds; it was published again"
            );
        }
        Ok(published)
    }
}

impl KeyHealing {
    async fn heal_some(&self, page: &[Customer]) -> Result<u64, StoreError> {
        let away = |error| StoreError::Unavailable(format!("the topic of keys: {error}"));
        let stored = known(page.iter());
        let ids: HashSet<String> = stored
            .wrapped
            .keys()
            .chain(&stored.erased)
            .cloned()
            .collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let topic = self.topic.published(&ids).await?;
        let is_lost = |customer: &&Customer| {
            let id = customer.id();
            // A tombstone is final, whoever wrote it.
            let (Some(stored), false) = (stored.wrapped.get(id), topic.erased.contains(id)) else {
                return false;
            };
            let published = topic.wrapped.get(id);
            published
                .is_none_or(|published| !DataKey::does_as_well(&self.sealer, published, stored, id))
        };
        let lost: Vec<Customer> = page.iter().filter(is_lost).cloned().collect();
        let mut published = 0;
        for customer in self.current(lost).await? {
            let wrapped = customer.data_key();
            let sent = self.topic.publish(customer.id(), wrapped).await;
            sent.map_err(away)?;
            published += 1;
        }
        let mut erased: Vec<&String> = stored.erased.iter().collect();
        erased.sort_unstable();
        for id in erased {
            // A customer of whom only the last state is known may never have had a key. An unneeded tombstone does no
            // harm.
            if !topic.tombstones.contains(id) {
                self.topic.publish(id, None).await.map_err(away)?;
                published += 1;
            }
        }
        Ok(published)
    }

    /// The customers of whom the log has shown no newer revision than the stored one. The check is needed because a
    /// store that was restored from a backup does not know who was erased since. A customer that changes meanwhile is
    /// read once more. If that change is an erasure, the customer is left to the next run.
    async fn current(&self, mut customers: Vec<Customer>) -> Result<Vec<Customer>, StoreError> {
        let mut current = Vec::with_capacity(customers.len());
        while !customers.is_empty() {
            let requests: Vec<ChangesRequest> = customers
                .iter()
                .map(|customer| ChangesRequest {
                    subject: customer.id().to_owned(),
                    after_revision: customer.revision(),
                    limit: 1,
                })
                .collect();
            let newer = self.changes.changes(&requests).await?;
            let (proven, doubtful): (Vec<_>, Vec<_>) = customers
                .into_iter()
                .zip(newer)
                .partition(|(_, newer)| newer.is_empty());
            current.extend(proven.into_iter().map(|(customer, _)| customer));
            let doubtful: Vec<Customer> = doubtful.into_iter().map(|(it, _)| it).collect();
            customers = self.changed_since(&doubtful).await?;
        }
        Ok(current)
    }

    /// Those of the customers, in their present state, that have a key and were changed since they were read.
    async fn changed_since(&self, customers: &[Customer]) -> Result<Vec<Customer>, StoreError> {
        if customers.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = customers.iter().map(|it| it.id().to_owned()).collect();
        let stored = self.customers.get_many(&ids).await?;
        let mut changed = Vec::new();
        for (stored, read) in stored.into_iter().zip(customers) {
            let Some(customer) = stored.map(|stored| stored.state) else {
                continue;
            };
            let revision = customer.revision();
            if revision == read.revision() {
                tracing::warn!(
                    customer = customer.id(),
                    revision,
                    "the log knows a newer state of a customer than the store, so its data key is not published; rebuild the store"
                );
            } else if customer.data_key().is_some() {
                changed.push(customer);
            }
        }
        Ok(changed)
    }
}
