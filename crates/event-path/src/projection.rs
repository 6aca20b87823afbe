//! Runs a projection: reads a topic in a consumer group, passes on what has arrived, and commits offsets after the
//! write.
//!
//! * What has arrived is processed at once: a single message does not wait (unless its projection is patient), a
//!   backlog comes in large batches.
//! * Offsets are stored for commit only after the projection's writes are durable, so a crash repeats messages and
//!   never skips one. Readers need not wait for that, because the log has the change. So a projection may show a batch
//!   at once, and is asked a moment later to make durable what it has shown, many batches together. Until then they are
//!   held here, to be written again if the store lost them.
//! * What cannot be processed is parked with the later messages of the same key, and copied to `<topic>.DLT`;
//!   everything else goes on. A message without a key and without a recognizable subject stands alone. An erasure
//!   settles its key: it is processed, and what was parked is removed.
//! * While the store is down the projection waits, and keeps its group membership.

mod runner;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use runner::Runner;

use crate::{
    checkpoint::Checkpoint,
    data_keys::{Keys, Unopened},
    dead_letter_topic::DeadLetterTopic,
    log::{Attention, Log, LogError, Membership, ReadErrors},
    spans::Processing,
    store::{DeadLetterStore, StoreError, WriteEpoch},
    waiting::Waiting,
};
use tandem_model::message::{Message, Position, Rejection};
use tandem_runtime::shutdown::Shutdown;

/// Something that is built from a topic, one message after the other.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// A message that could be read.
    type Item: Clone + Send + Sync;

    /// Its name: the consumer group, and the consumer that dead letters name.
    fn name(&self) -> &'static str;

    /// How long a message waits at the broker for others to share its write: for what nobody waits for.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Reads a message. Pure: it asks nobody.
    ///
    /// # Errors
    /// Why the message cannot be taken, now or ever: it becomes a dead letter.
    fn decode(&self, message: &Message) -> Result<Self::Item, Rejection>;

    /// The subject of a message: what keeps it in order with others if it has no key.
    fn subject<'a>(&self, item: &'a Self::Item) -> &'a str;

    /// When the change was made that an item tells of, by the clock of who made it, where readers wait for what this projection shows.
    fn changed_at(&self, _item: &Self::Item) -> Option<DateTime<Utc>> {
        None
    }

    /// Whether a message settles its key: it needs nothing that came before it, and nothing of that is to be kept. It is taken also if
    /// the key is parked, and what is parked of the key is removed.
    fn settles(&self, _item: &Self::Item) -> bool {
        false
    }

    /// Where events wait that do not open, if any of them may be sealed.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// What it takes to open what is sealed in items.
    ///
    /// # Errors
    /// When nobody can be asked now: the runner tries again.
    async fn keys(&self, _items: &[Self::Item]) -> Result<Keys, StoreError> {
        Ok(Keys::default())
    }

    /// Opens what is sealed in an item. Pure: it asks nobody.
    ///
    /// # Errors
    /// Why it does not open now: it waits for its key by itself.
    fn open(&self, item: Self::Item, _keys: &Keys) -> Result<Self::Item, Unopened> {
        Ok(item)
    }

    /// Writes a batch, in order within each partition. Writing the same again must change nothing.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn apply(&self, items: Vec<(Position, Self::Item)>) -> Result<(), StoreError>;

    /// Writes a batch as [`Self::apply`] does, for readers to see at once; a crash of the store may undo it until
    /// [`Self::confirm_durable`] says otherwise. Answers the epoch in which it was written, `None` if it is durable.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn apply_early(
        &self,
        items: Vec<(Position, Self::Item)>,
    ) -> Result<Option<WriteEpoch>, StoreError> {
        self.apply(items).await.map(|()| None)
    }

    /// Makes durable what was shown in `epoch`. Answers false if the store may have lost it: the runner has it applied then.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn confirm_durable(&self, _epoch: &WriteEpoch) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// The status of a running projection. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ProjectionStatus(Arc<Status>);

#[derive(Debug, Default)]
struct Status {
    lag: AtomicI64,
    applied: AtomicU64,
    parked: AtomicU64,
    held_back: AtomicU64,
    waiting_for_store: AtomicBool,
    /// How often messages came that are not behind those before them.
    read_again: AtomicU64,
    /// Messages that came to the log since nothing is read, which would tell of them.
    grown: AtomicI64,
    read_errors: ReadErrors,
    checkpoints: Mutex<BTreeMap<i32, Checkpoint>>,
}

impl ProjectionStatus {
    /// That of a projection which notes there what it cannot read.
    #[must_use]
    pub fn of(read_errors: ReadErrors) -> Self {
        Self(Arc::new(Status {
            read_errors,
            ..Status::default()
        }))
    }

    /// Messages in the topic that are not applied yet, of the partitions that this instance reads, and dead letters, which
    /// are held back; as of some seconds ago.
    #[must_use]
    pub fn lag(&self) -> i64 {
        let held_back = i64::try_from(self.held_back()).unwrap_or(i64::MAX);
        self.unread().saturating_add(held_back)
    }

    /// Messages between what is applied or set aside and the end of the log.
    #[must_use]
    pub fn unread(&self) -> i64 {
        let grown = self.0.grown.load(Ordering::Relaxed);
        self.0.lag.load(Ordering::Relaxed).saturating_add(grown)
    }

    /// Dead letters.
    #[must_use]
    pub fn held_back(&self) -> u64 {
        self.0.held_back.load(Ordering::Relaxed)
    }

    /// Messages applied since the start.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.0.applied.load(Ordering::Relaxed)
    }

    /// Keys that have dead letters.
    #[must_use]
    pub fn parked_keys(&self) -> u64 {
        self.0.parked.load(Ordering::Relaxed)
    }

    /// Of each partition the last message that was applied durably since the start.
    #[must_use]
    pub fn checkpoints(&self) -> BTreeMap<i32, Checkpoint> {
        let checkpoints = self.0.checkpoints.lock();
        checkpoints.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often messages came that are not known to be behind all those that came before in their partition: the first since the start,
    /// those that are read again after a rebalance, those of a log that begins anew. Told before any checkpoint of theirs.
    #[must_use]
    pub fn read_again(&self) -> u64 {
        self.0.read_again.load(Ordering::Acquire)
    }

    /// What it cannot read, where that has lasted for some time: everything behind it waits.
    #[must_use]
    pub fn read_error(&self) -> Option<String> {
        self.0.read_errors.lasting()
    }

    /// Whether it waits for a store that does not answer.
    #[must_use]
    pub fn is_waiting_for_store(&self) -> bool {
        self.0.waiting_for_store.load(Ordering::Relaxed)
    }
}

/// Starts to run a projection of `topic`; dead letters are copied to `<topic>.DLT`.
///
/// `store_identity` (see [`crate::store::identity`]) is part of the consumer group's name, so that a new, empty store
/// reads the topic from the beginning.
///
/// # Errors
/// When a setting of the log is wrong.
pub fn run_projection<P: Projection>(
    projection: Arc<P>,
    store_identity: &str,
    topic: &'static str,
    log: &Arc<dyn Log>,
    dead_letters: Arc<dyn DeadLetterStore>,
    shutdown: &Shutdown,
) -> Result<ProjectionStatus, LogError> {
    let name = projection.name();
    let status = ProjectionStatus::of(ReadErrors::new(shutdown.clock()));
    // A series that begins with the first dead letter is no increase.
    for counter in [
        "dead_letters_total",
        "dead_letter_copies_cut_total",
        "dead_letter_copies_skipped_total",
    ] {
        metrics::counter!(counter, "projection" => name).increment(0);
    }
    let patience = projection.patience();
    let told = status.clone();
    let group = format!("{name}.{store_identity}");
    let member = log.join(Membership {
        group: group.clone(),
        topic,
        // The patient let the broker gather, which costs it one answer where it had many.
        attention: if patience.is_zero() {
            Attention::Prompt
        } else {
            Attention::Patient(patience)
        },
        on_lag: Arc::new(move |lag| {
            told.0.lag.store(lag, Ordering::Relaxed);
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("projection_lag_messages", "projection" => name).set(told.lag() as f64);
            let is_stuck = told.read_error().is_some();
            metrics::gauge!("projection_read_error", "projection" => name).set(u8::from(is_stuck));
        }),
        errors: status.0.read_errors.clone(),
    })?;
    let mut runner = Runner {
        projection,
        topic,
        group,
        started: shutdown.clock().now().into(),
        processing: Processing::default(),
        member,
        log: Arc::clone(log),
        copies: DeadLetterTopic::start(log, shutdown),
        dead_letters,
        parked: HashSet::new(),
        parked_read: None,
        shown: None,
        taken: HashMap::new(),
        newest: HashMap::new(),
        status: status.clone(),
        clock: shutdown.clock().clone(),
        shutdown: shutdown.clone(),
    };
    let (log, stop) = (Arc::clone(log), shutdown.token());
    shutdown.spawn(async move {
        // Not behind the log, which may be away: who looks at the dead letters must not take silence for none.
        if runner.recall_parked().await.is_none() {
            return;
        }
        let ready = tokio::select! {
            biased;
            () = stop.cancelled() => false,
            ready = log.ready() => ready,
        };
        if ready {
            runner.run().await;
        }
    });
    Ok(status)
}
