//! Batched reads of one operation. The store is asked once, however many customers the operation reads.

use std::{collections::HashMap, fmt, io, sync::Arc, time::Duration};

use dataloader::{BatchFn, cached::Loader};
use tandem_event_path::{
    commands::Gate,
    store::{AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, StoreError},
};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::clock::Clock;
use tandem_service::graphql::{ApiError, batched};

use super::failure;
use crate::domain::{Customer, CustomerId};

/// The longest time that a reader waits until its own change has come back from the log.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

/// How often the audit trail is read during this wait.
const AUDIT_POLL: Duration = Duration::from_millis(20);

type Found<T> = Result<T, ApiError>;

/// A page of an audit trail.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) records: Vec<ChangeRecord>,
    /// Whether the page may be incomplete, because the store is still being filled from the log.
    pub(super) is_partial: bool,
}

/// A page of the audit trail of one customer, for a reader that saw the customer at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChangesOf {
    pub(super) page: ChangesRequest,
    /// The revision that the reader saw.
    pub(super) revision: i64,
}

/// The loaders of one operation.
pub struct Loaders {
    customers: Loader<CustomerId, Found<Option<Customer>>, CustomerBatch>,
    changes: Loader<ChangesOf, Found<Trail>, ChangesBatch>,
}

impl fmt::Debug for Loaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Loaders")
    }
}

impl Loaders {
    /// Creates loaders that have read nothing yet.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<Customer>>,
        log: Arc<dyn ChangeLog>,
        gate: Gate,
        clock: Clock,
    ) -> Self {
        Self {
            customers: batched(CustomerBatch(store, gate.clone())),
            changes: batched(ChangesBatch(log, gate, clock)),
        }
    }

    pub(super) async fn customer(&self, id: CustomerId) -> Found<Option<Customer>> {
        self.customers.try_load(id).await.unwrap_or_else(missed)
    }

    pub(super) async fn changes(&self, key: ChangesOf) -> Found<Trail> {
        self.changes.try_load(key).await.unwrap_or_else(missed)
    }
}

/// The error for a key without an answer. A batch answers every key that it gets, so this is a fault of the loader.
fn missed<T>(error: io::Error) -> Found<T> {
    Err(ApiError::internal(error))
}

struct CustomerBatch(Arc<dyn AggregateStore<Customer>>, Gate);

impl BatchFn<CustomerId, Found<Option<Customer>>> for CustomerBatch {
    async fn load(&mut self, keys: &[CustomerId]) -> HashMap<CustomerId, Found<Option<Customer>>> {
        let ids: Vec<String> = keys.iter().map(ToString::to_string).collect();
        metrics::histogram!("batched_reads_keys", "of" => Customer::NAME).record(size(keys.len()));
        // The gate is read before the store. If the store was filled by then, a customer that it lacks is not in the
        // log either.
        let is_filling = !self.1.is_open();
        match self.0.get_many(&ids).await {
            Ok(found) => keys
                .iter()
                .cloned()
                .zip(found)
                .map(|(key, found)| match found {
                    None if is_filling => (key, Err(failure::filling())),
                    found => (key, Ok(found.map(|stored| stored.state))),
                })
                .collect(),
            Err(error) => fail(keys, &error),
        }
    }
}

struct ChangesBatch(Arc<dyn ChangeLog>, Gate, Clock);

impl BatchFn<ChangesOf, Found<Trail>> for ChangesBatch {
    async fn load(&mut self, keys: &[ChangesOf]) -> HashMap<ChangesOf, Found<Trail>> {
        metrics::histogram!("batched_reads_keys", "of" => "change").record(size(keys.len()));
        let deadline = self.2.instant() + AUDIT_WAIT;
        let mut answers = HashMap::with_capacity(keys.len());
        let mut open = keys.to_vec();
        loop {
            let pages: Vec<ChangesRequest> = open.iter().map(|key| key.page.clone()).collect();
            let is_filling = !self.1.is_open();
            let found = match self.0.changes(&pages).await {
                Ok(found) => found,
                Err(error) => {
                    answers.extend(fail(&open, &error));
                    return answers;
                }
            };
            let over = self.2.instant() >= deadline;
            let mut behind = Vec::new();
            for (key, page) in open.into_iter().zip(found) {
                if over || is_filling || shows(&key, &page) {
                    let trail = Trail {
                        // The trail of one customer is written in order, so a full page is complete.
                        is_partial: is_filling && page.len() < key.page.limit,
                        records: page,
                    };
                    answers.insert(key, Ok(trail));
                } else {
                    behind.push(key);
                }
            }
            if behind.is_empty() {
                return answers;
            }
            open = behind;
            self.2.sleep(AUDIT_POLL).await;
        }
    }
}

/// Whether a page shows everything up to the reader's revision: it is full, or it reaches that revision.
fn shows(key: &ChangesOf, page: &[ChangeRecord]) -> bool {
    let newest = page
        .last()
        .map_or(key.page.after_revision, |record| record.revision);
    page.len() >= key.page.limit || newest >= key.revision
}

fn fail<K, T>(keys: &[K], error: &StoreError) -> HashMap<K, Found<T>>
where
    K: Clone + Eq + std::hash::Hash,
{
    let error = failure::of_store(error);
    keys.iter()
        .map(|key| (key.clone(), Err(error.clone())))
        .collect()
}

#[allow(clippy::cast_precision_loss)] // at most 1,000
fn size(count: usize) -> f64 {
    count as f64
}
