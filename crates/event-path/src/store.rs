//! The ports through which a service keeps its aggregates, its change log and its dead letters.
//!
//! Two adapters fill each port: `tandem-store-redb` (one file a service) and `tandem-store-mongodb`.
//! One contract suite holds both to the same behaviour.

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

/// Why a store did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not in time; asking again later may work.
    #[error("the store is away: {0}")]
    Away(String),
    /// It answered something that cannot be: a document that does not decode, an index that is missing.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

/// What is said of a store that cannot be written: the operating system's words, and those for callers.
const PUBLIC_REASONS: [(&str, &str); 4] = [
    ("no space left on device", "no space left on device"),
    ("file too large", "its file may not become larger"),
    ("quota exceeded", "the disk quota is used up"),
    ("read-only file system", "the file system is read-only"),
];

impl StoreError {
    /// Why it is away, in general words that any caller may read; `None` where the reason is for the log alone.
    #[must_use]
    pub fn public_reason(&self) -> Option<&'static str> {
        let Self::Away(reason) = self else {
            return None;
        };
        let reason = reason.to_lowercase();
        let known = PUBLIC_REASONS
            .iter()
            .find(|(said, _)| reason.contains(said));
        known.map(|(_, reason)| *reason)
    }
}

/// How much waits to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// Events pending.
    pub events: u64,
    /// When the oldest of them was stored.
    pub oldest: Option<DateTime<Utc>>,
}

/// The pending events of a store.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Pending events of aggregates whose oldest pending event was stored at or before `recorded_before`,
    /// in order of key, then revision, of keys greater than `after_key`. All pending events of a key come
    /// together, so a page may hold more than `limit` events by what its last key has.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError>;

    /// Forgets published events: for each key, all up to and with the given revision.
    ///
    /// # Errors
    /// When the store does not answer; they are then published again later, which does no harm.
    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError>;

    /// How much is pending now.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}

/// A stored aggregate with the events of it that are not yet known to be published.
#[derive(Clone, Debug)]
pub struct Stored<A> {
    /// The state after its newest change.
    pub state: A,
    /// Pending events in order of revision; empty when all are published.
    pub pending: Vec<PendingEvent>,
}

/// One change of one aggregate, to be written whole or not at all.
#[derive(Clone, Debug)]
pub struct Write<A> {
    /// The revision the stored aggregate must have; 0 when there must be none.
    pub expected_revision: i64,
    /// The state after the change, its revision `expected_revision + 1`.
    pub state: A,
    /// The event that describes the change.
    pub event: PendingEvent,
    /// The caller's key for this request, if it gave one: see [`AggregateStore::first_answer`].
    pub idempotency_key: Option<RequestKey>,
    /// Whether the first answers to requests before this one, which hold earlier states, are forgotten in the same step: for a change
    /// that takes something away for good. Their keys stay used and are answered as [`AggregateStore::forget_answers_of`] says.
    pub forget_answers: bool,
}

/// A stored thing as a rebuild saw it, of which nothing waits to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedRow {
    /// The aggregate's id, or the subject of an entry.
    pub id: String,
    /// Its revision; the greatest number there is if what is stored in its place is no number.
    pub revision: i64,
    /// Tells this writing of it from every other one, also of the same id and revision. The store alone reads it.
    pub version: Vec<u8>,
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// State and event are durable.
    Written,
    /// The stored revision is not the expected one; nothing was written.
    Stale,
    /// Another request with the same idempotency key was first; nothing was written.
    KeyTaken,
}

/// A time in which a store loses nothing of what readers see: a crash, or another primary, begins the next one.
///
/// What was written in one epoch without waiting until it is durable is all there if something that was written later in the same
/// epoch is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteEpoch(pub String);

/// A list of aggregates: all, or those whose fields have the given values.
///
/// The fields must be those of one entry of [`Aggregate::INDEXES`], in that order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(pub Vec<(&'static str, String)>);

impl Filter {
    /// The list of all.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }
}

/// The error for a filter that is none of [`Aggregate::INDEXES`]: a fault of the program, not of the request.
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
    /// Which list.
    pub filter: Filter,
    /// Only ids greater than this.
    pub after: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Bytes of stored documents after which a page ends early: memory is bounded whatever one document holds.
pub const PAGE_BYTES: usize = 2 * 1024 * 1024;

/// One request for a page of the aggregates whose `field` has a value from `first` to `last`, both included, in ascending
/// order of that value, then of id. Values are compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanRequest {
    /// Must be the only field of one entry of [`Aggregate::INDEXES`].
    pub field: &'static str,
    /// The least value.
    pub first: String,
    /// The greatest value.
    pub last: String,
    /// Only what comes behind the aggregate with this value and this id.
    pub after: Option<(String, String)>,
    /// At most so many; fewer when they have more than [`PAGE_BYTES`] together.
    pub limit: usize,
}

impl SpanRequest {
    /// The list that it reads, by the name of its field.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter(vec![(self.field, self.first.clone())])
    }
}

/// A page of a [`SpanRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<A> {
    /// What was found, in order.
    pub found: Vec<A>,
    /// Whether there may be more behind it.
    pub more: bool,
}

/// First answers that are kept of one aggregate; of more, the oldest are forgotten.
pub const KEPT_ANSWERS: usize = 1_000;

/// Keeps aggregates of one kind with their pending events.
#[async_trait]
pub trait AggregateStore<A: Aggregate>: Outbox {
    /// The aggregates with these ids, in the order asked for, `None` for those that do not exist. One batched read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError>;

    /// Writes one change: state, event and idempotency key in one atomic step, durable when this returns.
    /// Concurrent calls share a commit.
    ///
    /// # Errors
    /// When the store does not answer; it is then unknown whether the change was written.
    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError>;

    /// The state that the first request with this idempotency key made, while it is kept: 24 h, and the last
    /// [`KEPT_ANSWERS`] of an aggregate.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError>;

    /// Keeps `state` as the answer to a request that changed nothing, under its idempotency key, if it still is what is
    /// stored: [`Outcome::Stale`] when the stored revision is another one. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError>;

    /// Forgets the idempotency keys of requests made before `before`. Returns how many.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError>;

    /// Forgets the states in the first answers of these aggregates, however young they are: for what must not be kept. Their keys stay
    /// used, for the same request must not be carried out a second time: each is answered with the present state.
    ///
    /// # Errors
    /// When the store does not answer; some may then be forgotten.
    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError>;

    /// Pages of lists, one answer for each request, in one batched read where the store can.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError>;

    /// A page of many short lists that lie side by side, such as the orders of a page of customers. One read.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError>;

    /// Puts back states that were read from the log: each replaces what is stored unless that is of a newer revision.
    /// Pending events and idempotency keys stay as they are. In bulk; durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be restored, and restoring them again does no harm.
    async fn restore(&self, states: &[A]) -> Result<(), StoreError>;

    /// At most `limit` aggregates behind `after` of which nothing is pending, in order of id; none when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes aggregates with their first answers, each only if it is still as it was seen: not written since, and nothing
    /// pending. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be removed, and removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts states in the place of newer ones, each only if what is stored is still as it was seen: not written since, and
    /// nothing pending. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be set back, and setting them back again does no harm.
    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError>;

    /// Answers when the store is there.
    ///
    /// # Errors
    /// When it is not.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Why the newest write failed, where that lies with the store and not with who wrote; `None` once one has succeeded again. Such a
    /// store may answer [`Self::ping`].
    fn last_failure(&self) -> Option<StoreError> {
        None
    }
}

/// One entry of the audit trail, as read from the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The aggregate that changed.
    pub subject: String,
    /// The revision that the change made.
    pub revision: i64,
    /// The CloudEvents id of the event that carried the change.
    pub event_id: String,
    /// What kind of change, such as `CREATED`.
    pub kind: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// Who asked for it.
    pub changed_by: String,
    /// Top-level parts that differ from the revision before.
    #[serde(default)]
    pub changed_fields: Vec<String>,
    /// Where in the log the event was first seen.
    pub partition: i32,
    /// Where in that partition.
    pub offset: i64,
}

/// One request for a page of an audit trail, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChangesRequest {
    /// Whose.
    pub subject: String,
    /// Only revisions greater than this.
    pub after_revision: i64,
    /// At most so many.
    pub limit: usize,
}

/// The audit trail: a projection of the log.
#[async_trait]
pub trait ChangeLog: Send + Sync + 'static {
    /// Adds entries. One whose (subject, revision) is there already changes nothing: the first one seen stays.
    ///
    /// # Errors
    /// When the store does not answer; some entries may then be written, and adding them again does no harm.
    async fn append(&self, records: Vec<ChangeRecord>) -> Result<(), StoreError>;

    /// Writes entries as they are in the log: one whose (subject, revision) is there and that differs is replaced. Returns how
    /// many were replaced. For a rebuild, which knows the first occurrence of each.
    ///
    /// # Errors
    /// When the store does not answer; some entries may then be written, and writing them again does no harm.
    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError>;

    /// At most `limit` entries behind `after`, in order of subject, then revision; none when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError>;

    /// Removes entries, each only if it is still as it was seen. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be removed, and removing them again does no harm.
    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Pages of audit trails, one answer for each request.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError>;
}

/// What a store remembers of itself, so that a new, empty one is known as such.
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// What is remembered under a name.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn recall(&self, name: &str) -> Result<Option<String>, StoreError>;

    /// Remembers a value under a name, durably, unless one is there: what is remembered then is returned.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn remember(&self, name: &str, value: &str) -> Result<String, StoreError>;

    /// Remembers a value under a name, durably, in the place of what was there.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn note(&self, name: &str, value: &str) -> Result<(), StoreError>;

    /// Forgets what is remembered under a name, durably.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn forget(&self, name: &str) -> Result<(), StoreError>;

    /// All that is remembered under names that begin so, with the names, in no order.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn recall_all(&self, prefix: &str) -> Result<Vec<(String, String)>, StoreError>;
}

/// The store's own name: made once when it was new. Consumer groups carry it, so that an empty store reads its topics
/// from the beginning, whatever a store before it had read.
///
/// # Errors
/// When the store does not answer.
pub async fn identity(registry: &dyn Registry, clock: &Clock) -> Result<String, StoreError> {
    let fresh = format!("{:08x}", clock.random() >> 96);
    registry.remember("identity", &fresh).await
}

/// Asks a store until it answers, with growing pauses; `None` when the service stops before. `waiting` tells why meanwhile.
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
