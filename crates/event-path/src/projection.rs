//! Runs a projection: reads a topic in a consumer group, passes arrived messages to the projection, and commits offsets
//! after the write.
//!
//! * Arrived messages are processed at once. A single message does not wait, unless its projection is patient. A
//!   backlog comes in large batches.
//! * Offsets are stored for commit only after the projection's writes are durable, so a crash repeats messages and
//!   never skips one. Readers need not wait for that, because the log has the change. So a projection may show a batch
//!   at once. A moment later it is asked to make many shown batches durable together. Until then the runner keeps the
//!   messages, to write them again if the store lost them.
//! * A message that cannot be processed is parked, with the later messages of the same key, and copied to
//!   `<topic>.DLT`. Other keys go on. A message without a key and without a recognizable subject stands alone. An
//!   erasure settles its key: it is processed, and the parked messages of the key are removed.
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

/// Something that is built from a topic, message by message.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// A decoded message.
    type Item: Clone + Send + Sync;

    /// The projection's name: the start of the consumer group's name, and the consumer that dead letters name.
    fn name(&self) -> &'static str;

    /// How long a message may wait at the broker for others to share its write. Only for projections that nobody waits
    /// for.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Decodes a message. A pure function without I/O.
    ///
    /// # Errors
    /// Why the message can never be processed. It becomes a dead letter.
    fn decode(&self, message: &Message) -> Result<Self::Item, Rejection>;

    /// The subject of a message. It orders the message among others if the message has no key.
    fn subject<'a>(&self, item: &'a Self::Item) -> &'a str;

    /// When the change was made, by the clock of the service that made it. `None` if no reader waits for what this
    /// projection shows.
    fn changed_at(&self, _item: &Self::Item) -> Option<DateTime<Utc>> {
        None
    }

    /// Whether a message settles its key. Such a message needs no earlier one, and nothing earlier may be kept. It is
    /// processed even if the key is parked, and the parked messages of the key are removed.
    fn settles(&self, _item: &Self::Item) -> bool {
        false
    }

    /// Where events wait that cannot be opened yet. `None` if no event is ever sealed.
    fn waiting(&self) -> Option<&Waiting> {
        None
    }

    /// The keys that are needed to open sealed parts of these items.
    ///
    /// # Errors
    /// When the keys cannot be read now. The runner tries again.
    async fn keys(&self, _items: &[Self::Item]) -> Result<Keys, StoreError> {
        Ok(Keys::default())
    }

    /// Opens the sealed parts of an item. A pure function without I/O.
    ///
    /// # Errors
    /// Why the item cannot be opened now. It then waits for its key without holding up others.
    fn open(&self, item: Self::Item, _keys: &Keys) -> Result<Self::Item, Unopened> {
        Ok(item)
    }

    /// Writes a batch, in order within each partition. Writing a batch again must change nothing.
    ///
    /// # Errors
    /// When the store is unavailable. The runner tries again.
    async fn apply(&self, items: Vec<(Position, Self::Item)>) -> Result<(), StoreError>;

    /// Writes a batch like [`Self::apply`], visible to readers at once. A crash of the store may undo it, until
    /// [`Self::confirm_durable`] returns true. Returns the epoch of the write, or `None` if the write is durable.
    ///
    /// # Errors
    /// When the store is unavailable. The runner tries again.
    async fn apply_early(
        &self,
        items: Vec<(Position, Self::Item)>,
    ) -> Result<Option<WriteEpoch>, StoreError> {
        self.apply(items).await.map(|()| None)
    }

    /// Makes everything durable that was shown in `epoch`. Returns false if the store may have lost it. The runner then
    /// applies it again.
    ///
    /// # Errors
    /// When the store is unavailable. The runner tries again.
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
    /// How often a message came that was not behind those before it.
    read_again: AtomicU64,
    /// Messages that came to the log while nothing was read. Reads would otherwise report them as lag.
    grown: AtomicI64,
    read_errors: ReadErrors,
    checkpoints: Mutex<BTreeMap<i32, Checkpoint>>,
}

impl ProjectionStatus {
    /// A status that reports these read errors.
    #[must_use]
    pub fn of(read_errors: ReadErrors) -> Self {
        Self(Arc::new(Status {
            read_errors,
            ..Status::default()
        }))
    }

    /// Messages in this instance's partitions that are not applied yet, including dead letters. The number is some
    /// seconds old.
    #[must_use]
    pub fn lag(&self) -> i64 {
        let held_back = i64::try_from(self.held_back()).unwrap_or(i64::MAX);
        self.unread().saturating_add(held_back)
    }

    /// Messages between the last one that was applied or parked and the end of the log.
    #[must_use]
    pub fn unread(&self) -> i64 {
        let grown = self.0.grown.load(Ordering::Relaxed);
        self.0.lag.load(Ordering::Relaxed).saturating_add(grown)
    }

    /// The number of dead letters.
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

    /// For each partition, the last message that was applied durably since the start.
    #[must_use]
    pub fn checkpoints(&self) -> BTreeMap<i32, Checkpoint> {
        let checkpoints = self.0.checkpoints.lock();
        checkpoints.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often messages came that are not known to be behind all earlier ones of their partition. These are the first
    /// messages since the start, messages that are read again after a rebalance, and messages of a log that begins
    /// again. The count grows before any checkpoint of such a message is stored.
    #[must_use]
    pub fn read_again(&self) -> u64 {
        self.0.read_again.load(Ordering::Acquire)
    }

    /// What the projection has failed to read for some time. Everything behind it waits.
    #[must_use]
    pub fn read_error(&self) -> Option<String> {
        self.0.read_errors.lasting()
    }

    /// Whether the projection waits for a store that does not answer.
    #[must_use]
    pub fn is_waiting_for_store(&self) -> bool {
        self.0.waiting_for_store.load(Ordering::Relaxed)
    }
}

/// Starts a projection of `topic`. Dead letters are copied to `<topic>.DLT`.
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
    // Rates count from the first sample of a series. Starting at 0 makes the first dead letter visible.
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
        // For a patient projection the broker collects records, and sends fewer answers.
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
        // This must not wait for the log, which may be unavailable. Without it, health would report no dead letters.
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
