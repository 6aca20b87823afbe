//! The ports through which a service keeps its aggregates, its change log and its dead letters.
//!
//! Two adapters implement each port: `tandem-store-redb` (one file per service) and `tandem-store-mongodb`. Both must
//! pass the same contract suite.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use tandem_model::{
    aggregate::Aggregate,
    pending::PendingEvent,
    request_key::{FirstAnswer, RequestKey},
};
use tandem_runtime::{backoff::Backoff, clock::Clock, shutdown::Shutdown};

/// The pauses while a store does not answer.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

pub mod dead_letters;
mod read_barrier;

pub use dead_letters::{DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId};
pub use read_barrier::ReadBarrier;

/// Why a request to a store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store does not answer, or not in time. A later retry may work.
    #[error("the store is away: {0}")]
    Unavailable(String),
    /// The store holds invalid data: a document that does not decode, or a missing index.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

/// Why a store cannot be written: the operating system's words, and the words for callers.
const PUBLIC_REASONS: [(&str, &str); 4] = [
    ("no space left on device", "no space left on device"),
    ("file too large", "its file may not become larger"),
    ("quota exceeded", "the disk quota is used up"),
    ("read-only file system", "the file system is read-only"),
];

impl StoreError {
    /// Why the store is unavailable, in general words that any caller may read. `None` if the reason is meant only for
    /// the service's own log output.
    #[must_use]
    pub fn public_reason(&self) -> Option<&'static str> {
        let Self::Unavailable(reason) = self else {
            return None;
        };
        let reason = reason.to_lowercase();
        let known = PUBLIC_REASONS
            .iter()
            .find(|(said, _)| reason.contains(said));
        known.map(|(_, reason)| *reason)
    }
}

/// What waits to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// The number of pending events.
    pub events: u64,
    /// When the oldest pending event was stored.
    pub oldest: Option<DateTime<Utc>>,
}

/// The pending events of a store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Pending events of aggregates whose oldest pending event was stored at or before `recorded_before`. They are in
    /// order of key, then revision. Only keys greater than `after_key` count. All pending events of a key come
    /// together, so the events of the last key may exceed `limit`.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError>;

    /// Removes published events: for each key, all up to and including the given revision.
    ///
    /// # Errors
    /// When the store does not answer. The events may then be published again, which does no harm.
    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError>;

    /// What is pending now.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}

/// A stored aggregate, with its events that are not yet known to be published.
#[derive(Clone, Debug)]
pub struct Stored<A> {
    /// The state after its newest change.
    pub state: A,
    /// Pending events in order of revision. Empty if all are published.
    pub pending: Vec<PendingEvent>,
}

/// One change of one aggregate, written completely or not at all.
#[derive(Clone, Debug)]
pub struct Write<A> {
    /// The revision that the stored aggregate must have. 0 if it must not exist.
    pub expected_revision: i64,
    /// The state after the change. Its revision is `expected_revision + 1`.
    pub state: A,
    /// The event that describes the change.
    pub event: PendingEvent,
    /// The caller's idempotency key, if it gave one: see [`AggregateStore::first_answer`].
    pub idempotency_key: Option<RequestKey>,
    /// Whether to remove the earlier states in stored first answers, in the same step. For a change that removes data
    /// for good. The keys stay used: see [`AggregateStore::forget_answers_of`].
    pub forget_answers: bool,
}

/// A stored row as a rebuild saw it, with nothing pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRow {
    /// The aggregate's id, or the subject of an entry.
    pub id: String,
    /// The revision. The largest number if the stored revision is not a number.
    pub revision: i64,
    /// Distinguishes this write of the row from every other one, even of the same id and revision. Only the store reads
    /// it.
    pub version: Vec<u8>,
}

/// The outcome of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// State and event are durable.
    Written,
    /// The stored revision is not the expected one. Nothing was written.
    Stale,
    /// Another request with the same idempotency key came first. Nothing was written.
    KeyTaken,
}

/// A period in which a store loses nothing that readers see. A crash or a change of the primary begins the next one.
///
/// If a write is durable, all earlier writes of the same epoch are durable too, even those that did not wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteEpoch(pub String);

/// A list of aggregates: all, or those whose fields have the given values.
///
/// The fields must be those of one entry of [`Aggregate::INDEXES`], in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(pub Vec<(&'static str, String)>);

impl Filter {
    /// The list of all aggregates.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }
}

/// The error for a filter that is not in [`Aggregate::INDEXES`]. It is a bug in the program, not in the request.
pub fn no_such_list<A: Aggregate>(filter: &Filter) -> StoreError {
    let fields: Vec<&str> = filter.0.iter().map(|(field, _)| *field).collect();
    StoreError::Corrupt(format!(
        "{} has no list by {}",
        A::COLLECTION,
        fields.join(", ")
    ))
}

/// One request for a page of a list, in ascending order of id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The list.
    pub filter: Filter,
    /// Only ids greater than this.
    pub after: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// Bytes of stored documents after which a page ends early. This bounds memory, however large one document is.
pub const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// One request for a page of the aggregates whose `field` has a value from `first` to `last`, both included. The page
/// is in order of that value, then of id. Values are compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRequest {
    /// The only field of one entry of [`Aggregate::INDEXES`].
    pub field: &'static str,
    /// The smallest value.
    pub first: String,
    /// The largest value.
    pub last: String,
    /// Only aggregates behind the one with this value and this id.
    pub after: Option<(String, String)>,
    /// At most this many. Fewer if they exceed [`PAGE_BYTES`] together.
    pub limit: usize,
}

impl SpanRequest {
    /// The list that this reads, by the name of its field.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter(vec![(self.field, self.first.clone())])
    }
}

/// A page of a [`SpanRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<A> {
    /// The aggregates, in order.
    pub found: Vec<A>,
    /// Whether there may be more behind them.
    pub more: bool,
}

/// First answers that are kept of one aggregate. The oldest are removed first.
pub const KEPT_ANSWERS: usize = 1_000;

/// Keeps aggregates of one kind with their pending events.
#[async_trait]
pub trait AggregateStore<A: Aggregate>: Outbox {
    /// The aggregates with these ids, in the given order. `None` for an id that does not exist. One batched read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError>;

    /// Writes one change: state, event and idempotency key in one atomic step. Durable when this returns. Concurrent
    /// calls share a commit.
    ///
    /// # Errors
    /// When the store does not answer. It is then unknown whether the change was written.
    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError>;

    /// The state after the first request with this idempotency key, while it is kept: for 24 h, and only the last
    /// [`KEPT_ANSWERS`] of an aggregate.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError>;

    /// Keeps `state` as the answer to a request that changed nothing, under its idempotency key. [`Outcome::Stale`] if
    /// the stored revision is another one. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError>;

    /// Removes the idempotency keys of requests made before `before`. Returns how many.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError>;

    /// Removes the states in all first answers of these aggregates, because they must not be kept. The keys stay used,
    /// so that a repeated request is not carried out again. Its answer is the present state.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be removed.
    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError>;

    /// Pages of lists, one for each request. One batched read if the store can do that.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError>;

    /// A page of many short lists that lie side by side, such as the orders of a page of customers. One read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError>;

    /// Writes states from the log. Each replaces the stored one unless that has a newer revision. Pending events and
    /// idempotency keys do not change. One bulk write, durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be written. Writing them again does no harm.
    async fn restore(&self, states: &[A]) -> Result<(), StoreError>;

    /// At most `limit` aggregates behind `after` with nothing pending, in order of id. Empty when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes aggregates with their first answers, each only if it was not written since and has nothing pending.
    /// Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be removed. Removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Replaces newer states with these, each only if the newer one was not written since and has nothing pending.
    /// Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be reverted. Reverting them again does no harm.
    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError>;

    /// Checks that the store answers.
    ///
    /// # Errors
    /// When it does not answer.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Why the newest write failed, if the cause is the store and not the writer. `None` after the next success. Such a
    /// store may still answer [`Self::ping`].
    fn last_failure(&self) -> Option<StoreError> {
        None
    }
}

/// One entry of the audit trail, as read from the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The aggregate that changed.
    pub subject: String,
    /// The revision after the change.
    pub revision: i64,
    /// The CloudEvents id of the event that carried the change.
    pub event_id: String,
    /// The kind of change, such as `CREATED`.
    pub kind: String,
    /// When the change was made.
    pub changed_at: DateTime<Utc>,
    /// Who asked for the change.
    pub changed_by: String,
    /// Top-level parts that differ from the previous revision.
    #[serde(default)]
    pub changed_fields: Vec<String>,
    /// The partition where the event was first seen.
    pub partition: i32,
    /// The offset in that partition.
    pub offset: i64,
}

/// One request for a page of an audit trail, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangesRequest {
    /// The aggregate.
    pub subject: String,
    /// Only revisions greater than this.
    pub after_revision: i64,
    /// At most this many.
    pub limit: usize,
}

/// The audit trail: a projection of the log.
#[async_trait]
pub trait ChangeLog: Send + Sync + 'static {
    /// Adds entries. The first entry of each subject and revision stays.
    ///
    /// # Errors
    /// When the store does not answer. Some entries may then be written. Adding them again does no harm.
    async fn append(&self, records: Vec<ChangeRecord>) -> Result<(), StoreError>;

    /// Writes entries as they are in the log. A stored entry of the same subject and revision is replaced if it
    /// differs. Returns how many were replaced. For a rebuild, which knows the first occurrence of each.
    ///
    /// # Errors
    /// When the store does not answer. Some entries may then be written. Writing them again does no harm.
    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError>;

    /// At most `limit` entries behind `after`, in order of subject, then revision. Empty when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes entries, each only if it is unchanged since it was seen. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer. Some may then be removed. Removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Pages of audit trails, one for each request.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError>;
}

/// What a store remembers about itself, so that a new, empty store is recognized.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// The value under a name.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Stores a value under a name durably, unless there is one. Returns the value that is stored then.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError>;

    /// Stores a value under a name durably. Replaces the old one.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn note(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Removes the value under a name durably.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn forget(&self, name: &str) -> Result<(), StoreError>;

    /// All names with this prefix and their values, in no order.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError>;
}

/// The store's own id, made once when the store was new. Consumer groups carry it, so that an empty store reads its
/// topics from the beginning, whatever an earlier store had read.
///
/// # Errors
/// When the store does not answer.
pub async fn identity(registry: &dyn Registry, clock: &Clock) -> Result<String, StoreError> {
    let fresh = format!("{:08x}", clock.random() >> 96);
    registry.remember("identity", &fresh).await
}

/// Asks a store until it answers, with growing pauses. `None` when the service stops before. Each failure is passed to
/// `waiting`.
pub async fn until_answered<T, F>(
    waiting: impl Fn(String),
    shutdown: &Shutdown,
    ask: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    shutdown
        .retry(BACKOFF, ask, |error, pause| {
            waiting(error.to_string());
            tracing::warn!(%error, ?pause, "the store does not answer; trying again");
        })
        .await
}
