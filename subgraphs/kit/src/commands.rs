//! How a command on an aggregate is carried out: load, decide, write, and again if another was faster.
//!
//! The rules are the aggregate's: it is given as a function that decides. This is the part that is the same for all.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use crate::{
    aggregate::Aggregate,
    event::CloudEvent,
    fault,
    outbox::{
        Companion, PendingEvent,
        relay::{LARGEST_EVENT, RelayHandle},
    },
    shutdown::Shutdown,
    store::{AggregateStore, Outcome, StoreError, Stored, Write},
    values::Timestamp,
};

/// Commands on one aggregate take turns within a process: so many aggregates at once do not share a turn.
const TURNS: usize = 1_024;
/// How often a command is decided anew because other instances changed the aggregate meanwhile.
const TRIES: usize = 16;
/// Events of one aggregate that may wait for Kafka. In MongoDB they are part of its document, which may not exceed 16 MiB.
pub const PENDING_LIMIT: usize = 1_000;
/// Bytes of the events of one aggregate that may wait, for the same reason: state and first answers need room too.
pub const PENDING_BYTES: usize = 8 * 1024 * 1024;
/// The first event of an aggregate must leave this part of what an event may have, so that later changes, which add little,
/// are not refused for its size.
const LEFT_BY_THE_FIRST: usize = 50;

/// What a command makes of an aggregate.
#[derive(Clone, Debug)]
pub struct Decision<A> {
    /// The state after the change; its revision is one more than before.
    pub state: A,
    /// The event that tells of the change.
    pub event: CloudEvent,
    /// What must be published before the event.
    pub companions: Vec<Companion>,
    /// Whether earlier states must not be kept as first answers: see [`Write::forget_answers`].
    pub forget_answers: bool,
}

/// Whether the aggregate is expected to exist, which saves a read when it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It is most likely new: write first, read only if it was there.
    New,
    /// It most likely exists.
    Existing,
}

/// Keeps commands out while a new, empty store is filled from the log: a customer that is in the log and not yet in the
/// store must not be created a second time. Clones share it.
#[derive(Clone, Debug)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    /// A gate that lets commands through.
    #[must_use]
    pub fn open() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// A gate that keeps commands out until [`Self::let_through`].
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }

    /// Lets commands through from now on.
    pub fn let_through(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it lets commands through.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CommandError<E> {
    /// The aggregate's rules do not allow it.
    #[error("refused")]
    Rejected(E),
    /// Other instances changed the aggregate again and again meanwhile.
    #[error("the aggregate is being changed by too many at once")]
    Contended,
    /// Too many events of this aggregate wait for Kafka.
    #[error("too many changes of this aggregate wait to be published")]
    Backlogged,
    /// The event that tells of the change would be larger than Kafka takes.
    #[error(
        "the change is too large to be published: {bytes} bytes, expected at most {most}; give less or shorter texts"
    )]
    TooLarge {
        /// Bytes of its body.
        bytes: usize,
        /// Most bytes that it may have.
        most: usize,
    },
    /// The store is new and still being filled from the log.
    #[error("the store is new and is being filled from the log; try again in a moment")]
    Filling,
    /// The store does not answer; whether the change was written is unknown.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// How long idempotency keys are kept.
const KEYS_KEPT: TimeDelta = TimeDelta::hours(24);
/// How often old ones are removed.
const KEY_SWEEP: Duration = Duration::from_secs(600);

/// Removes idempotency keys that are older than a day, at once and then every ten minutes, until the service stops.
pub fn forget_old_keys<A: Aggregate>(store: Arc<dyn AggregateStore<A>>, shutdown: &Shutdown) {
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        loop {
            match store.forget_answers(Utc::now() - KEYS_KEPT).await {
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

/// Carries out commands on aggregates of one kind. Clones share it.
#[derive(Clone)]
pub struct CommandHandler<A: Aggregate> {
    store: Arc<dyn AggregateStore<A>>,
    relay: Option<RelayHandle>,
    gate: Gate,
    turns: Arc<Vec<Mutex<()>>>,
    hasher: RandomState,
}

impl<A: Aggregate> CommandHandler<A> {
    /// A handler on this store that tells this relay of what it wrote. Without a relay the events stay pending.
    #[must_use]
    pub fn new(store: Arc<dyn AggregateStore<A>>, relay: Option<RelayHandle>) -> Self {
        Self {
            store,
            relay,
            gate: Gate::open(),
            turns: Arc::new((0..TURNS).map(|_| Mutex::new(())).collect()),
            hasher: RandomState::new(),
        }
    }

    /// The same behind a gate.
    #[must_use]
    pub fn behind(mut self, gate: Gate) -> Self {
        self.gate = gate;
        self
    }

    /// The store that it works on.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn AggregateStore<A>> {
        &self.store
    }

    /// Carries out one command and returns the state after it.
    ///
    /// `decide` is given the present state, `None` if there is none, and may be called several times. It returns
    /// `Ok(None)` when nothing is to change: the present state is then the answer, and is kept under the key. With an idempotency key that was
    /// used before, the first answer is returned and `decide` is not asked.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn execute<E: Send>(
        &self,
        id: &str,
        idempotency_key: Option<String>,
        expectation: Expectation,
        decide: impl Fn(Option<&A>) -> Result<Option<Decision<A>>, E> + Send + Sync,
    ) -> Result<A, CommandError<E>> {
        if !self.gate.is_open() {
            return Err(CommandError::Filling);
        }
        let turn = usize::try_from(self.hasher.hash_one(id) % TURNS as u64).unwrap_or_default();
        let _turn = self.turns[turn].lock().await;
        let mut assume_new = expectation == Expectation::New;
        for _ in 0..TRIES {
            if !assume_new
                && let Some(first) = self.first_answer(idempotency_key.as_deref()).await?
            {
                return Ok(first);
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
                match (state, idempotency_key.as_deref()) {
                    // The key is kept also when nothing changes: asked again after somebody else's change, the same
                    // request would otherwise undo that one.
                    (Some(state), Some(key)) => {
                        if self.store.keep_answer(key, &state, now()).await? == Outcome::Written {
                            return Ok(state);
                        }
                        continue;
                    }
                    (Some(state), None) => return Ok(state),
                    // Assumed to be new and nothing to do: look before answering.
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
                    recorded_at: now(),
                    event,
                    companions,
                },
                state: next,
                idempotency_key: idempotency_key.clone(),
                forget_answers,
            };
            fault::abort_if_told(fault::Instant::BeforeWrite, A::NAME);
            match self.store.write(&write).await? {
                Outcome::Written => {
                    if let Some(relay) = &self.relay {
                        let mut all = pending;
                        all.push(write.event);
                        relay.offer(all);
                    }
                    return Ok(write.state);
                }
                Outcome::Stale | Outcome::KeyTaken => {
                    metrics::counter!("commands_retried_total", "aggregate" => A::NAME)
                        .increment(1);
                }
            }
        }
        Err(CommandError::Contended)
    }

    /// Most bytes of the event that makes this revision. What Kafka would not take must not be stored: it could never go.
    fn largest_event(&self, revision: i64) -> usize {
        let most = self
            .relay
            .as_ref()
            .map_or(LARGEST_EVENT, RelayHandle::largest_event);
        if revision > 1 {
            return most;
        }
        most - most / LEFT_BY_THE_FIRST
    }

    async fn first_answer(&self, key: Option<&str>) -> Result<Option<A>, StoreError> {
        match key {
            Some(key) => self.store.first_answer(key).await,
            None => Ok(None),
        }
    }

    async fn load(&self, id: &str) -> Result<Option<Stored<A>>, StoreError> {
        let found = self.store.get_many(&[id.to_owned()]).await?;
        Ok(found.into_iter().next().flatten())
    }
}

/// Now, to the millisecond, as every store keeps it.
fn now() -> DateTime<Utc> {
    Timestamp::now().as_datetime()
}
