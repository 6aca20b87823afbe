//! Carries out a command on an aggregate: load, decide, write. If another writer was faster, it decides again.
//!
//! The aggregate's rules are passed in as a function that decides. This module is the same for all aggregates.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::{
    fault::{self, Fault},
    outbox::{
        Companion, PendingEvent,
        relay::{LARGEST_EVENT, RelayHandle},
    },
    store::{AggregateStore, Outcome, StoreError, Stored, Write},
    waiting::Waiting,
};
use tandem_model::{
    aggregate::Aggregate,
    event::CloudEvent,
    request_key::{FirstAnswer, RequestKey},
    values::Timestamp,
};
use tandem_runtime::{clock::Clock, shutdown::Shutdown, trace_context::TraceContext};

/// Number of locks for commands. Commands on one aggregate take turns within a process. With this many locks,
/// concurrent commands on different aggregates rarely share one.
const TURNS: usize = 1_024;
/// How often a command is decided again because other instances changed the aggregate in the meantime.
const TRIES: usize = 16;
/// Events of one aggregate that may wait for Kafka. In MongoDB they are part of the aggregate's document, which is
/// limited to 16 MiB.
pub const PENDING_LIMIT: usize = 1_000;
/// Bytes of the events of one aggregate that may wait for Kafka. The same document also holds the state and first
/// answers.
pub const PENDING_BYTES: usize = 8 * 1024 * 1024;
/// Most bytes of an event, even if Kafka takes more. Its state and a full backlog must fit into one MongoDB document.
pub const LARGEST_STORED_EVENT: usize = 3 * 1024 * 1024;
/// The first event of an aggregate must leave 1/50 of the largest size free. Later changes add little, and so are not
/// refused for their size.
const LEFT_BY_THE_FIRST: usize = 50;

/// The result of a command on an aggregate.
#[derive(Clone, Debug)]
pub struct Decision<A> {
    /// The state after the change. Its revision is one more than before.
    pub state: A,
    /// The event that describes the change.
    pub event: CloudEvent,
    /// Messages that are published with the event: see [`PendingEvent::companions`].
    pub companions: Vec<Companion>,
    /// Whether earlier states must be removed from the stored first answers: see [`Write::forget_answers`].
    pub forget_answers: bool,
}

/// Whether the aggregate is expected to exist. For a new one this saves a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// The aggregate is most likely new. The handler writes first, and reads only if that fails.
    New,
    /// The aggregate most likely exists.
    Existing,
}

/// Keeps commands out while a store is filled from the log: a new, empty store, or one that is behind the log. Without
/// the gate, a customer that is in the log and not yet in the store could be created a second time. Clones share the
/// state.
#[derive(Clone, Debug)]
pub struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    is_open: AtomicBool,
    reason: std::sync::Mutex<Option<String>>,
}

impl Gate {
    fn new(is_open: bool) -> Self {
        Self(Arc::new(GateState {
            is_open: AtomicBool::new(is_open),
            reason: std::sync::Mutex::default(),
        }))
    }

    /// A gate that is open.
    #[must_use]
    pub fn open() -> Self {
        Self::new(true)
    }

    /// A gate that keeps commands out until [`Self::let_through`] is called.
    #[must_use]
    pub fn closed() -> Self {
        Self::new(false)
    }

    /// Opens the gate.
    pub fn let_through(&self) {
        self.0.is_open.store(true, Ordering::Release);
    }

    /// Sets the reason why the gate is still closed.
    pub fn close_because(&self, reason: String) {
        *self.reason_now() = Some(reason);
    }

    /// The reason why the gate is still closed, if one was set.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.reason_now().clone()
    }

    fn reason_now(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        let reason = self.0.reason.lock();
        reason.unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the gate is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_open.load(Ordering::Acquire)
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError<E> {
    /// The aggregate's rules do not allow it.
    #[error("refused")]
    Rejected(E),
    /// Other instances kept changing the aggregate in the meantime.
    #[error("the aggregate is being changed by too many at once")]
    Contended,
    /// Too many events of this aggregate wait for Kafka.
    #[error("too many changes of this aggregate wait to be published")]
    Backlogged,
    /// The event that describes the change would be larger than Kafka or the store can take.
    #[error(
        "the change is too large to be published: {bytes} bytes, expected at most {most}; give less or shorter texts"
    )]
    TooLarge {
        /// Bytes of the event's body.
        bytes: usize,
        /// Most bytes that the body may have.
        most: usize,
    },
    /// The idempotency key was used for a request with another input.
    #[error(
        "this idempotency key was used for another request; give each request a key of its own, and the same input when asking again"
    )]
    KeyReused,
    /// The store is still being filled from the log: it is new, or behind the log.
    #[error("the store is being filled from the log; try again in a moment")]
    Filling,
    /// The log holds an event of this aggregate that cannot be opened yet, so the stored state is not the newest.
    #[error(
        "the log holds a change that waits for its data key, so what is stored is not the newest; `tandem keys waiting` says more"
    )]
    Waiting,
    /// The store does not answer. Whether the change was written is unknown.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// How long idempotency keys are kept.
const KEYS_KEPT: TimeDelta = TimeDelta::hours(24);
/// How often expired idempotency keys are removed.
const KEY_SWEEP: Duration = Duration::from_secs(600);

/// Removes idempotency keys that are older than a day: now, and then every ten minutes until the service stops.
pub fn forget_old_keys<A: Aggregate>(store: Arc<dyn AggregateStore<A>>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            let now = DateTime::<Utc>::from(stop.clock().now());
            match store.forget_answers(now - KEYS_KEPT).await {
                Ok(0) => {}
                Ok(keys) => {
                    tracing::info!(aggregate = A::NAME, keys, "old idempotency keys removed");
                }
                Err(error) => {
                    tracing::warn!(aggregate = A::NAME, %error, "old idempotency keys could not be removed; trying again later");
                }
            }
            if !stop.sleep(KEY_SWEEP).await {
                return;
            }
        }
    });
}

/// Carries out commands on aggregates of one kind. Clones share the store, the relay and the locks.
#[derive(Clone)]
pub struct CommandHandler<A: Aggregate> {
    store: Arc<dyn AggregateStore<A>>,
    relay: Option<RelayHandle>,
    gate: Gate,
    waiting: Option<Waiting>,
    turns: Arc<Vec<Arc<Mutex<()>>>>,
    /// A random salt, so that nobody can choose ids that share a lock.
    salt: u128,
    clock: Clock,
    shutdown: Shutdown,
}

impl<A: Aggregate> CommandHandler<A> {
    /// A handler on this store. It offers the events that it wrote to the relay. Without a relay the events stay
    /// pending. A service that stops waits for writes that have begun.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<A>>,
        relay: Option<RelayHandle>,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            store,
            relay,
            gate: Gate::open(),
            waiting: None,
            turns: Arc::new((0..TURNS).map(|_| Arc::default()).collect()),
            salt: shutdown.clock().random(),
            clock: shutdown.clock().clone(),
            shutdown: shutdown.clone(),
        }
    }

    /// The same handler behind a gate.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// The same handler with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The clock of this handler.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The present time in milliseconds, the precision of every store.
    fn now(&self) -> DateTime<Utc> {
        Timestamp::from(self.clock.now()).as_datetime()
    }

    /// The same handler, but it refuses commands on an aggregate while one of its events is among these. Without that,
    /// a customer that is in the log and not in the store could be created a second time.
    #[must_use]
    pub fn except(mut self, waiting: Waiting) -> Self {
        self.waiting = Some(waiting);
        self
    }

    /// The store of this handler.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn AggregateStore<A>> {
        &self.store
    }

    /// Whether the store is still being filled from the log. Until then, an aggregate that is missing in the store may
    /// be in the log.
    #[must_use]
    pub fn is_filling(&self) -> bool {
        !self.gate.is_open()
    }

    /// The gate that keeps commands out while the store is being filled from the log.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Carries out one command and returns the state after it.
    ///
    /// `decide` gets the present state, or `None` if there is none. It may be called several times. It returns
    /// `Ok(None)` if nothing has to change. Then the present state is the answer, and it is stored under the
    /// idempotency key. If the idempotency key was used before, the first answer is returned and `decide` is not
    /// called.
    ///
    /// The caller may be cancelled at any moment: a write that has begun is finished, and the relay is notified.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute<E: Send>(
        &self,
        id: &str,
        idempotency_key: Option<RequestKey>,
        expectation: Expectation,
        decide: impl Fn(Option<&A>) -> Result<Option<Decision<A>>, E> + Send + Sync,
    ) -> Result<A, CommandError<E>> {
        if !self.gate.is_open() {
            return Err(CommandError::Filling);
        }
        if self
            .waiting
            .as_ref()
            .is_some_and(|waiting| waiting.holds(id))
        {
            return Err(CommandError::Waiting);
        }
        let mut turn = Arc::clone(&self.turns[self.turn_of(id)]).lock_owned().await;
        let mut assume_new = expectation == Expectation::New;
        for _ in 0..TRIES {
            if !assume_new
                && let Some(key) = &idempotency_key
                && let Some(first) = self.store.first_answer(key).await?
            {
                let target = (expectation == Expectation::Existing).then_some(id);
                return repeated(first, key, target);
            }
            let present = if assume_new {
                None
            } else {
                self.load(id).await?
            };
            assume_new = false;
            let (state, pending) = match present {
                Some(stored) => (Some(stored.state), stored.pending),
                None => (None, Vec::new()),
            };
            let decision = decide(state.as_ref()).map_err(CommandError::Rejected)?;
            let Some(Decision {
                state: next,
                event,
                companions,
                forget_answers,
            }) = decision
            else {
                match (state, &idempotency_key) {
                    // The answer is stored also if nothing changes. Otherwise a repeated request could undo a change
                    // that somebody else made in between.
                    (Some(state), Some(key)) => {
                        if self.store.keep_answer(key, &state, self.now()).await?
                            == Outcome::Written
                        {
                            return Ok(state);
                        }
                        continue;
                    }
                    (Some(state), None) => return Ok(state),
                    // The aggregate was assumed to be new and there is nothing to do: read the store before answering.
                    (None, _) => continue,
                }
            };
            let bytes = event.data.len();
            let most = self.largest_event(next.revision());
            if bytes > most {
                return Err(CommandError::TooLarge { bytes, most });
            }
            let waiting: usize = pending.iter().map(|it| it.event.data.len()).sum();
            if pending.len() >= PENDING_LIMIT || waiting + bytes > PENDING_BYTES.max(bytes) {
                return Err(CommandError::Backlogged);
            }
            let write = Write {
                expected_revision: next.revision() - 1,
                event: PendingEvent {
                    key: next.id().to_owned(),
                    revision: next.revision(),
                    recorded_at: self.now(),
                    event,
                    companions,
                },
                state: next,
                idempotency_key: idempotency_key.clone(),
                forget_answers,
            };
            fault::abort_if_ordered(fault::Instant::BeforeWrite, A::NAME);
            let written = self.write(turn, write, pending).await?;
            match written.outcome {
                Outcome::Written => return Ok(written.state),
                Outcome::Stale | Outcome::KeyTaken => {
                    metrics::counter!("commands_retried_total", "aggregate" => A::NAME)
                        .increment(1);
                }
            }
            turn = written.turn;
        }
        Err(CommandError::Contended)
    }

    /// Writes and, in the same step, offers the events to the relay. The task runs to its end even if the caller is
    /// cancelled, and keeps the lock until then.
    async fn write(
        &self,
        turn: OwnedMutexGuard<()>,
        write: Write<A>,
        mut pending: Vec<PendingEvent>,
    ) -> Result<Written<A>, StoreError> {
        let (store, relay) = (Arc::clone(&self.store), self.relay.clone());
        let writing = self.shutdown.spawn(TraceContext::carried(async move {
            let outcome = store.write(&write).await?;
            if outcome == Outcome::Written
                && let Some(relay) = relay
            {
                if fault::is_on(Fault::HintTrusted) {
                    pending.clear();
                }
                pending.push(write.event);
                relay.offer(pending);
            }
            Ok(Written {
                outcome,
                state: write.state,
                turn,
            })
        }));
        writing
            .await
            .map_err(|error| StoreError::Unavailable(format!("a write was broken off: {error}")))?
    }

    /// Most bytes of the event of this revision. An event that Kafka would not take must not be stored, because it
    /// could never be published.
    fn largest_event(&self, revision: i64) -> usize {
        let most = self
            .relay
            .as_ref()
            .map_or(LARGEST_EVENT, RelayHandle::largest_event)
            .min(LARGEST_STORED_EVENT);
        if revision > 1 {
            return most;
        }
        most - most / LEFT_BY_THE_FIRST
    }

    /// The index of the lock for commands on this id.
    fn turn_of(&self, id: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        (self.salt, id).hash(&mut hasher);
        usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default()
    }

    async fn load(&self, id: &str) -> Result<Option<Stored<A>>, StoreError> {
        let found = self.store.get_many(&[id.to_owned()]).await?;
        Ok(found.into_iter().next().flatten())
    }
}

/// The outcome of a write, with the state and the lock that went into it.
struct Written<A> {
    outcome: Outcome,
    state: A,
    turn: OwnedMutexGuard<()>,
}

/// The answer to a request whose key was used before. `target` is the aggregate that the request is for, if it names
/// one.
///
/// # Errors
/// [`CommandError::KeyReused`] if the first request asked for something else.
pub fn repeated<A: Aggregate, E>(
    first: FirstAnswer<A>,
    key: &RequestKey,
    target: Option<&str>,
) -> Result<A, CommandError<E>> {
    let is_same = match &first.input {
        Some(input) => *input == key.input,
        // Stored by an earlier version that did not keep the input.
        None => target.is_none_or(|target| target == first.state.id()),
    };
    if is_same {
        Ok(first.state)
    } else {
        Err(CommandError::KeyReused)
    }
}
