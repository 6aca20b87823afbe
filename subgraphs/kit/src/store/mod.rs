//! The ports through which a service keeps its aggregates, its change log and its dead letters.
//!
//! Two adapters fill each port: [`embedded`] (redb, one file a service) and [`mongo`] (MongoDB).
//! One contract suite holds both to the same behaviour.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    aggregate::Aggregate,
    outbox::{Outbox, PendingEvent},
    shutdown::Shutdown,
    web::actuator::HealthReporter,
};

#[cfg(feature = "contract-suite")]
pub mod contract;
pub mod embedded;
pub mod mongo;
pub mod settings;
mod stores;

pub use stores::{Database, StoreNames, Stores, StoresError};

/// Why a store did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer, or not in time; asking again later may work.
    #[error("the store is away: {0}")]
    Away(String),
    /// It answered something that cannot be: a document that does not decode, an index that is missing.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
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
    /// The event that tells of the change.
    pub event: PendingEvent,
    /// The caller's key for this request, if it gave one: see [`AggregateStore::first_answer`].
    pub idempotency_key: Option<String>,
    /// Whether the first answers to requests before this one, which hold earlier states, are forgotten in the same step:
    /// for a change that takes something away for good.
    pub forget_answers: bool,
}

/// A stored thing as a rebuild saw it, of which nothing waits to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The aggregate's id, or the subject of an entry.
    pub id: String,
    /// Its revision; the greatest number there is if what is stored in its place is no number.
    pub revision: i64,
    /// Tells this writing of it from every other one, also of the same id and revision. The store alone reads it.
    pub mark: Vec<u8>,
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
/// What was written in one term without waiting until it is durable is all there if something that was written later in the same
/// term is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term(pub String);

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
fn no_such_list<A: Aggregate>(filter: &Filter) -> StoreError {
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

    /// The state that the first request with this idempotency key made, while it is kept (24 h).
    ///
    /// # Errors
    /// When the store does not answer.
    async fn first_answer(&self, idempotency_key: &str) -> Result<Option<A>, StoreError>;

    /// Keeps `state` as the answer to a request that changed nothing, under its idempotency key, if it still is what is
    /// stored: [`Outcome::Stale`] when the stored revision is another one. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn keep_answer(
        &self,
        idempotency_key: &str,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError>;

    /// Forgets the idempotency keys of requests made before `before`. Returns how many.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError>;

    /// Forgets the first answers that hold states of these aggregates, however young they are: for what must not be kept.
    ///
    /// # Errors
    /// When the store does not answer; some may then be forgotten.
    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError>;

    /// Pages of lists, one answer for each request, in one batched read where the store can.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError>;

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
    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError>;

    /// Removes aggregates with their first answers, each only if it is still as it was seen: not written since, and nothing
    /// pending. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be removed, and removing them again does no harm.
    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError>;

    /// Puts states in the place of newer ones, each only if what is stored is still as it was seen: not written since, and
    /// nothing pending. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be set back, and setting them back again does no harm.
    async fn set_back(&self, states: &[(Settled, A)]) -> Result<u64, StoreError>;

    /// Answers when the store is there.
    ///
    /// # Errors
    /// When it is not.
    async fn ping(&self) -> Result<(), StoreError>;
}

/// One entry of the audit trail, as read from the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeRecord {
    /// The aggregate that changed.
    pub subject: String,
    /// The revision that the change made.
    pub revision: i64,
    /// The CloudEvents id of the event that carried the change.
    pub event_id: Uuid,
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
    /// many were replaced. For a rebuild, which knows the first sighting of each.
    ///
    /// # Errors
    /// When the store does not answer; some entries may then be written, and writing them again does no harm.
    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError>;

    /// At most `limit` entries behind `after`, in order of subject, then revision; none when there are no more.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError>;

    /// Removes entries, each only if it is still as it was seen. Returns how many. Durable when this returns.
    ///
    /// # Errors
    /// When the store does not answer; some may then be removed, and removing them again does no harm.
    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError>;

    /// Pages of audit trails, one answer for each request.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError>;
}

/// A message that could not be taken, or that came behind one of the same key that could not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The consumer that did not take it: a projection's name.
    pub consumer: String,
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
    /// The message's key; messages of one key are parked and retried in order.
    pub key: String,
    /// Why it was not taken.
    pub reason: String,
    /// When it was set aside.
    pub parked_at: DateTime<Utc>,
    /// The message's headers as they were.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The message's body as it was; `None` for a tombstone.
    pub payload: Option<Vec<u8>>,
}

/// Messages set aside, until somebody retries or discards them.
#[async_trait]
pub trait DeadLetterStore: Send + Sync + 'static {
    /// Sets messages aside. One that is there already (same consumer, topic, partition, offset) changes nothing.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError>;

    /// The dead letters of a consumer in order of topic, partition, offset; all consumers' if `None`.
    /// At most `limit`.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn dead_letters(
        &self,
        consumer: Option<&str>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError>;

    /// The distinct keys under which a consumer has dead letters.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError>;

    /// Removes one dead letter. Returns whether it was there.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn unpark(
        &self,
        consumer: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<bool, StoreError>;
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
}

/// The store's own name: made once when it was new. Consumer groups carry it, so that an empty store reads its topics
/// from the beginning, whatever a store before it had read.
///
/// # Errors
/// When the store does not answer.
pub async fn identity(registry: &dyn Registry) -> Result<String, StoreError> {
    let fresh = format!("{:08x}", rand::random::<u32>());
    registry.remember("identity", &fresh).await
}

/// Asks a store until it answers, with growing pauses; `None` when the service stops before. `waiting` tells why meanwhile.
pub async fn until_answered<T, F>(
    waiting: &HealthReporter,
    shutdown: &Shutdown,
    ask: impl Fn() -> F,
) -> Option<T>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut pause = Duration::from_millis(100);
    loop {
        match ask().await {
            Ok(answer) => return Some(answer),
            Err(error) => {
                waiting.down(error.to_string());
                tracing::warn!(%error, ?pause, "the store does not answer; trying again");
            }
        }
        if !shutdown.sleep(pause).await {
            return None;
        }
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}
