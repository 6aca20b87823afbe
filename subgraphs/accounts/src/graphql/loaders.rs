//! Batched reads of one operation: however many customers it touches, the store is asked once.

use std::{collections::HashMap, fmt, io, sync::Arc, time::Duration};

use dataloader::{BatchFn, cached::Loader};
use tandem_event_path::store::{
    AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, StoreError,
};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::clock::Clock;
use tandem_service::graphql::batched;

use crate::domain::{Customer, CustomerId};

/// How long a reader waits for its own change to come back from the log, at most.
const AUDIT_WAIT: Duration = Duration::from_secs(1);

/// How often the audit trail is looked at meanwhile.
const AUDIT_POLL: Duration = Duration::from_millis(20);

type Found<T> = Result<T, Arc<StoreError>>;

/// A page of one customer's audit trail, asked for by a reader who saw that customer at a revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ChangesOf {
    pub(super) page: ChangesRequest,
    /// The revision that the reader saw.
    pub(super) revision: i64,
}

/// The loaders of one operation.
pub struct Loaders {
    customers: Loader<CustomerId, Found<Option<Customer>>, CustomerBatch>,
    changes: Loader<ChangesOf, Found<Vec<ChangeRecord>>, ChangesBatch>,
}

impl fmt::Debug for Loaders {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Loaders")
    }
}

impl Loaders {
    /// Loaders that have read nothing yet.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<Customer>>,
        log: Arc<dyn ChangeLog>,
        clock: Clock,
    ) -> Self {
        Self {
            customers: batched(CustomerBatch(store)),
            changes: batched(ChangesBatch(log, clock)),
        }
    }

    pub(super) async fn customer(&self, id: CustomerId) -> Found<Option<Customer>> {
        self.customers.try_load(id).await.unwrap_or_else(missed)
    }

    pub(super) async fn changes(&self, key: ChangesOf) -> Found<Vec<ChangeRecord>> {
        self.changes.try_load(key).await.unwrap_or_else(missed)
    }
}

/// A batch answers every key that it was asked for; a loader that says otherwise is broken.
fn missed<T>(error: io::Error) -> Found<T> {
    Err(Arc::new(StoreError::Corrupt(error.to_string())))
}

struct CustomerBatch(Arc<dyn AggregateStore<Customer>>);

impl BatchFn<CustomerId, Found<Option<Customer>>> for CustomerBatch {
    async fn load(&mut self, keys: &[CustomerId]) -> HashMap<CustomerId, Found<Option<Customer>>> {
        let ids: Vec<String> = keys.iter().map(ToString::to_string).collect();
        metrics::histogram!("batched_reads_keys", "of" => Customer::NAME).record(size(keys.len()));
        match self.0.get_many(&ids).await {
            Ok(found) => keys
                .iter()
                .cloned()
                .zip(found)
                .map(|(key, found)| (key, Ok(found.map(|stored| stored.state))))
                .collect(),
            Err(error) => fail(keys, error),
        }
    }
}

struct ChangesBatch(Arc<dyn ChangeLog>, Clock);

impl BatchFn<ChangesOf, Found<Vec<ChangeRecord>>> for ChangesBatch {
    async fn load(&mut self, keys: &[ChangesOf]) -> HashMap<ChangesOf, Found<Vec<ChangeRecord>>> {
        metrics::histogram!("batched_reads_keys", "of" => "change").record(size(keys.len()));
        let deadline = self.1.instant() + AUDIT_WAIT;
        let mut answers = HashMap::with_capacity(keys.len());
        let mut open = keys.to_vec();
        loop {
            let pages: Vec<ChangesRequest> = open.iter().map(|key| key.page.clone()).collect();
            let found = match self.0.changes(&pages).await {
                Ok(found) => found,
                Err(error) => {
                    answers.extend(fail(&open, error));
                    return answers;
                }
            };
            let over = self.1.instant() >= deadline;
            let mut behind = Vec::new();
            for (key, page) in open.into_iter().zip(found) {
                if over || shows(&key, &page) {
                    answers.insert(key, Ok(page));
                } else {
                    behind.push(key);
                }
            }
            if behind.is_empty() {
                return answers;
            }
            open = behind;
            self.1.sleep(AUDIT_POLL).await;
        }
    }
}

/// Whether a page shows what there was to see at the reader's revision: it is full, or reaches that revision.
fn shows(key: &ChangesOf, page: &[ChangeRecord]) -> bool {
    let newest = page
        .last()
        .map_or(key.page.after_revision, |record| record.revision);
    page.len() >= key.page.limit || newest >= key.revision
}

fn fail<K, T>(keys: &[K], error: StoreError) -> HashMap<K, Found<T>>
where
    K: Clone + Eq + std::hash::Hash,
{
    let error = Arc::new(error);
    keys.iter()
        .map(|key| (key.clone(), Err(Arc::clone(&error))))
        .collect()
}

#[allow(clippy::cast_precision_loss)] // at most 1,000
fn size(count: usize) -> f64 {
    count as f64
}
