//! Runs a projection: reads a topic in a consumer group, hands over what is there, commits offsets after the write.
//!
//! * What is there is taken at once: a single message waits for nobody (unless its projection is patient), a backlog comes
//!   in large batches.
//! * Offsets are stored for commit only after what the projection has written is durable, so a crash repeats and never skips.
//!   Readers need not wait for that: the log has it. So a projection may show a batch at once, and is asked to keep what it has
//!   shown a moment later, many batches together. Until then they are held here, to be written again if the store lost them.
//! * What cannot be taken is parked with what follows of the same key, and copied to `<topic>.DLT`; the flow goes on. What has no
//!   key and no subject that can be told stands alone. An erasure settles its key: it is taken, and what was parked is removed.
//! * A store that is away is waited out; the group membership is kept alive meanwhile.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::ready,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    checkpoint::Checkpoint,
    data_keys::{Keys, Unopened},
    dead_letter_topic::DeadLetterTopic,
    fault::{self, Fault},
    log::{Attention, Log, LogError, Member, Membership, Offsets},
    spans::Processing,
    store::{
        DeadLetter, DeadLetterFilter, DeadLetterStore, StoreError, WriteEpoch,
        dead_letters::{alone, ordering_key, stands_alone},
    },
    waiting::Waiting,
};
use tandem_model::{
    message::{Message, Position, Rejection},
    values::elapsed,
};
use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    exemplars,
    rate_limited_log::RateLimitedLog,
    shutdown::Shutdown,
    trace_context::TraceContext,
};

/// Messages handed over at once.
const BATCH: usize = 2_000;
/// A write that takes longer than this pauses the reading, so that the group keeps this member.
const SLOW: Duration = Duration::from_millis(500);
/// How long what is shown may wait to be kept, and so many messages of it at most.
const SHOWN: Duration = Duration::from_millis(200);
const SHOWN_AT_MOST: usize = BATCH;
/// The histogram of how soon changes can be read.
const VISIBLE: &str = "change_visible_seconds";
/// How long keeping it may take when the service stops.
const FAREWELL: Duration = Duration::from_millis(500);
/// The pauses after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// The pause after an error of a client that goes on by itself.
const BREATH: Duration = Duration::from_millis(50);
/// Longest wait for the last commit and for leaving the group.
const LEAVE_LIMIT: Duration = Duration::from_millis(800);
/// How often the parked keys are read again, so that what an operator freed flows again.
const PARKED_REFRESH: Duration = Duration::from_secs(2);
/// How often the log's ends are looked up while nothing is read, which otherwise tells them.
const ENDS_REFRESH: Duration = Duration::from_secs(5);

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

    /// Of whom a message tells: what keeps it in order with others if it has no key.
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

/// What a running projection tells of itself. Clones share it.
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
    checkpoints: Mutex<BTreeMap<i32, Checkpoint>>,
}

impl ProjectionStatus {
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
    let (name, status) = (projection.name(), ProjectionStatus::default());
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
        }),
    })?;
    let runner = Runner {
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

struct Runner<P: Projection> {
    projection: Arc<P>,
    topic: &'static str,
    group: String,
    /// What was made before this is read again or late, and says nothing of how soon changes are visible.
    started: DateTime<Utc>,
    /// What is recorded of the messages that are being taken.
    processing: Processing,
    member: Box<dyn Member>,
    log: Arc<dyn Log>,
    copies: DeadLetterTopic,
    dead_letters: Arc<dyn DeadLetterStore>,
    parked: HashSet<String>,
    parked_read: Option<Instant>,
    shown: Option<Shown<P::Item>>,
    /// For each partition the last message that was taken and is not stored for commit.
    taken: HashMap<i32, Checkpoint>,
    /// For each partition the offset of the last message that came.
    newest: HashMap<i32, i64>,
    status: ProjectionStatus,
    clock: Clock,
    shutdown: Shutdown,
}

/// What readers see and the store may still lose.
struct Shown<I> {
    epoch: WriteEpoch,
    /// Whether the store has begun another epoch since the first of it.
    epoch_changed: bool,
    messages: Vec<(Position, I)>,
    /// When it is to be kept.
    due: Instant,
}

impl<P: Projection> Runner<P> {
    async fn run(mut self) {
        let name = self.projection.name();
        let subscribed = self
            .shutdown
            .retry(
                BACKOFF,
                || ready(self.member.subscribe()),
                |error, pause| {
                    tracing::warn!(projection = name, %error, ?pause, "cannot subscribe; trying again");
                },
            )
            .await;
        if subscribed.is_none() {
            return;
        }
        let (stop, clock) = (self.shutdown.token(), self.clock.clone());
        let errors = RateLimitedLog::new(name, &self.clock);
        let mut carried: Vec<Message> = Vec::new();
        loop {
            let mut batch = std::mem::take(&mut carried);
            if batch.is_empty() {
                let due = self.due();
                let received = tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = until(&clock, due), if due.is_some() => None,
                    received = self.member.next() => Some(received),
                };
                match received {
                    Some(Ok(message)) => batch.push(message),
                    Some(Err(error)) => {
                        errors.error(&error).await;
                        continue;
                    }
                    None => {}
                }
            }
            while batch.len() < BATCH
                && let Some(message) = self.member.next_ready()
            {
                batch.push(message);
            }
            match self.take(batch).await {
                Some(read_meanwhile) => carried = read_meanwhile,
                None => break,
            }
        }
        let kept = clock
            .timeout(FAREWELL, self.confirm_durable(&mut carried))
            .await;
        if kept.is_err() {
            tracing::debug!(projection = name, "what was written last may be read again");
        }
        if !self.member.leave(LEAVE_LIMIT).await {
            tracing::warn!(
                projection = name,
                limit = ?LEAVE_LIMIT,
                "Kafka did not answer the last commit and the leave in time; some messages may be read again"
            );
        }
    }

    /// When something is to be done though nothing is read: what is shown is to be kept, or what an operator freed is to be
    /// looked for.
    fn due(&self) -> Option<Instant> {
        let shown = self.shown.as_ref().map(|shown| shown.due);
        let parked = self.parked_read.map(|read| read + PARKED_REFRESH);
        let parked = parked.filter(|_| self.status.held_back() > 0);
        shown.into_iter().chain(parked).min()
    }

    /// Takes a batch, which may be empty, and keeps what is shown if it is time to. Returns what was read meanwhile, `None` when the
    /// service stops.
    async fn take(&mut self, batch: Vec<Message>) -> Option<Vec<Message>> {
        let mut read_meanwhile = Vec::new();
        self.processing = Processing::begin(self.projection.name(), &self.group, &batch);
        let taken = match self.processing.context() {
            Some(context) => {
                context
                    .scope(self.take_recorded(batch, &mut read_meanwhile))
                    .await
            }
            None => self.take_recorded(batch, &mut read_meanwhile).await,
        };
        taken.map(|()| read_meanwhile)
    }

    async fn take_recorded(
        &mut self,
        batch: Vec<Message>,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        self.note_read_again(&batch);
        let last = last_of(&batch);
        let batch: Vec<Decoded<P::Item>> = batch.into_iter().map(|it| self.decoded(it)).collect();
        let concerned = batch.iter().any(|it| self.is_parked(it));
        self.refresh_parked(concerned, read_meanwhile).await?;
        let Sorted {
            messages,
            items,
            letters,
            settled,
        } = self.sort(batch);
        if !letters.is_empty() {
            for letter in &letters {
                self.processing.set_aside(letter.position(), &letter.reason);
            }
            self.set_aside(&letters, read_meanwhile).await?;
        }
        if fault::is_on(Fault::CommitBeforeWrite) {
            let _ = self.member.store(&offsets_behind(&last));
            let _ = self.member.commit();
            fault::abort_if_told(fault::Instant::AfterEarlyCommit, self.projection.name());
        }
        let readable = self.opened(messages, items, read_meanwhile).await?;
        let count = readable.len() as u64;
        if !readable.is_empty() {
            let changed = self.changed_at(&readable);
            let traced = self.processing.traces();
            self.apply_early(readable, read_meanwhile).await?;
            self.tell_visible(&changed, &traced);
        }
        // What is made durable later was visible before.
        self.processing = Processing::default();
        for key in settled {
            self.settle(&key, read_meanwhile).await?;
        }
        // Not before: a service that stops while the store is away must not commit what was not written.
        self.taken.extend(last);
        let may_wait = self.shown.as_ref().is_some_and(|shown| {
            shown.messages.len() < SHOWN_AT_MOST && self.clock.instant() < shown.due
        });
        if !may_wait {
            self.confirm_durable(read_meanwhile).await?;
        }
        self.status.0.applied.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("projection_applied_total", "projection" => self.projection.name())
            .increment(count);
        Some(())
    }

    /// When the changes were made that are about to be shown, and where they are, without what this projection catches up with.
    fn changed_at(&self, items: &[(Position, P::Item)]) -> Vec<(Position, DateTime<Utc>)> {
        let made = items
            .iter()
            .filter_map(|(at, item)| Some((*at, self.projection.changed_at(item)?)));
        made.filter(|(_, made)| *made >= self.started).collect()
    }

    /// Counts how long it took until changes could be read here. Two clocks tell it: the maker's and this one's.
    fn tell_visible(
        &self,
        changed: &[(Position, DateTime<Utc>)],
        traced: &[(Position, TraceContext)],
    ) {
        if changed.is_empty() {
            return;
        }
        let now = self.clock.now();
        let name = self.projection.name();
        let visible = metrics::histogram!(VISIBLE, "projection" => name);
        for (position, made) in changed {
            let seconds = elapsed(*made, now).as_secs_f64();
            visible.record(seconds);
            let traced = traced.iter().find(|(traced, _)| traced == position);
            if let Some((_, trace)) = traced {
                exemplars::keep(VISIBLE, &[("projection", name)], seconds, trace, now);
            }
        }
    }

    /// Takes note of messages that are not known to be behind those before them.
    fn note_read_again(&mut self, batch: &[Message]) {
        let mut is_again = false;
        for of_one in batch.chunk_by(|one, next| {
            one.position.partition == next.position.partition
                && one.position.offset < next.position.offset
        }) {
            let (Some(first), Some(last)) = (of_one.first(), of_one.last()) else {
                continue;
            };
            let newest = self
                .newest
                .insert(last.position.partition, last.position.offset);
            is_again |= newest.is_none_or(|newest| first.position.offset <= newest);
        }
        if is_again {
            self.status.0.read_again.fetch_add(1, Ordering::Release);
        }
    }

    /// Reads a message. Its key is told only where one may matter: while keys are parked, and of what cannot be taken.
    fn decoded(&self, message: Message) -> Decoded<P::Item> {
        let content = self.projection.decode(&message);
        let key = (!self.parked.is_empty() || content.is_err())
            .then(|| key_of(self.projection.as_ref(), &message, &content));
        Decoded {
            message,
            content,
            key,
        }
    }

    /// Whether a message is held back by an earlier one of its key, as far as was read.
    fn is_parked(&self, decoded: &Decoded<P::Item>) -> bool {
        let key = decoded.key.as_ref();
        key.is_some_and(|key| self.parked.contains(key))
    }

    /// Splits a batch into what was read and what is to be set aside, in order.
    fn sort(&mut self, batch: Vec<Decoded<P::Item>>) -> Sorted<P::Item> {
        let mut sorted = Sorted {
            messages: Vec::with_capacity(batch.len()),
            items: Vec::with_capacity(batch.len()),
            letters: Vec::new(),
            settled: Vec::new(),
        };
        for Decoded {
            message,
            content,
            key,
        } in batch
        {
            let key = match key {
                Some(key) => key,
                None if !self.parked.is_empty() => {
                    key_of(self.projection.as_ref(), &message, &content)
                }
                // Nothing is parked, and this can be taken: whatever its key is, it is taken.
                None => String::new(),
            };
            let is_parked = self.parked.contains(&key);
            let reason = match content {
                Ok(item) if self.projection.settles(&item) => {
                    if self.parked.remove(&key) {
                        sorted.letters.retain(|letter| letter.key != key);
                        sorted.settled.push(key);
                    }
                    sorted.take(message, item);
                    continue;
                }
                Ok(item) if !is_parked => {
                    sorted.take(message, item);
                    continue;
                }
                Err(rejection) if !is_parked => rejection.reason,
                _ => "an earlier message of this key is a dead letter".to_owned(),
            };
            let now = DateTime::from(self.clock.now());
            let letter = DeadLetter::new(self.projection.name(), message, key, reason, now);
            tracing::warn!(
                projection = self.projection.name(),
                topic = letter.topic,
                partition = letter.partition,
                offset = letter.offset,
                key = letter.key,
                reason = letter.reason,
                "message set aside as a dead letter"
            );
            if !stands_alone(&letter.key) {
                self.parked.insert(letter.key.clone());
            }
            sorted.letters.push(letter);
        }
        sorted
    }

    /// Removes what is parked of a key that was settled.
    async fn settle(&mut self, key: &str, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        let name = self.projection.name();
        let removed = self
            .until_done("dead letters cannot be removed", read_meanwhile, || {
                self.dead_letters.unpark_key(name, key)
            })
            .await?;
        if removed > 0 {
            tracing::info!(
                projection = name,
                key,
                letters = removed,
                "an erasure settled this key; its dead letters are removed"
            );
            self.count_parked(read_meanwhile).await?;
        }
        Some(())
    }

    /// Opens what was read. What does not open now is kept in the store until its key comes. `None` when the service stops before.
    async fn opened(
        &mut self,
        messages: Vec<Message>,
        items: Vec<P::Item>,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<Vec<(Position, P::Item)>> {
        let Some(waiting) = self.projection.waiting() else {
            let places = messages.into_iter().map(|message| message.position);
            return Some(places.zip(items).collect());
        };
        let keys = self
            .until_done("data keys cannot be told", read_meanwhile, || {
                self.projection.keys(&items)
            })
            .await?;
        let mut open = Vec::with_capacity(items.len());
        let mut kept: Vec<(Message, Unopened)> = Vec::new();
        for (message, item) in messages.into_iter().zip(items) {
            match self.projection.open(item, &keys) {
                Ok(item) => open.push((message.position, item)),
                Err(unopened) => {
                    self.processing.waits(message.position);
                    kept.push((message, unopened));
                }
            }
        }
        if !kept.is_empty() && !fault::is_on(Fault::NotWaited) {
            self.until_done("waiting events cannot be kept", read_meanwhile, || {
                waiting.keep(kept.clone())
            })
            .await?;
        }
        Some(open)
    }

    /// Writes what was read, however long the store is away. `None` when the service stops before.
    async fn apply_early(
        &mut self,
        readable: Vec<(Position, P::Item)>,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        let epoch = self
            .until_done("the store is away", read_meanwhile, || {
                self.projection.apply_early(readable.clone())
            })
            .await?;
        let Some(epoch) = epoch else {
            return Some(());
        };
        if let Some(shown) = &mut self.shown {
            shown.epoch_changed |= shown.epoch != epoch;
            shown.messages.extend(readable);
        } else {
            self.shown = Some(Shown {
                epoch,
                epoch_changed: false,
                messages: readable,
                due: self.clock.instant() + SHOWN,
            });
        }
        Some(())
    }

    /// Makes what is shown durable and stores the offsets of all that was taken. `None` when the service stops before.
    async fn confirm_durable(&mut self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        if let Some(shown) = &self.shown {
            self.until_done("the store is away", read_meanwhile, || {
                self.make_durable(shown)
            })
            .await?;
        }
        self.shown = None;
        fault::abort_if_told(fault::Instant::BeforeCommit, self.projection.name());
        if let Err(error) = self.member.store(&offsets_behind(&self.taken)) {
            // The partitions went to another member meanwhile: it reads these messages again, which changes nothing.
            tracing::debug!(projection = self.projection.name(), %error, "offsets not stored");
        }
        let checkpoints = self.status.0.checkpoints.lock();
        checkpoints
            .unwrap_or_else(PoisonError::into_inner)
            .extend(std::mem::take(&mut self.taken));
        Some(())
    }

    async fn make_durable(&self, shown: &Shown<P::Item>) -> Result<(), StoreError> {
        if !shown.epoch_changed && self.projection.confirm_durable(&shown.epoch).await? {
            return Ok(());
        }
        tracing::warn!(
            projection = self.projection.name(),
            messages = shown.messages.len(),
            "the store was restarted, or has another primary: what was written last is written again"
        );
        self.projection.apply(shown.messages.clone()).await
    }

    /// Parks dead letters in the store, then copies them to the dead letter topic.
    async fn set_aside(
        &mut self,
        letters: &[DeadLetter],
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        metrics::counter!("dead_letters_total", "projection" => self.projection.name())
            .increment(letters.len() as u64);
        self.until_done("dead letters cannot be parked", read_meanwhile, || {
            self.dead_letters.park(letters.to_vec())
        })
        .await?;
        self.count_parked(read_meanwhile).await?;
        self.copies.copy(letters).await;
        Some(())
    }

    /// Reads the parked keys anew after a rebalance, now and then while there are some, and when a message of one of them came, whose
    /// letters may be discarded since: otherwise it would be set aside behind nothing.
    async fn refresh_parked(
        &mut self,
        concerned: bool,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        let reassigned = self.member.was_reassigned();
        let stale = self.status.held_back() > 0
            && self
                .parked_read
                .is_none_or(|read| self.clock.since(read) >= PARKED_REFRESH);
        if !reassigned && !stale && !concerned {
            return Some(());
        }
        let name = self.projection.name();
        let keys = self
            .until_done("the parked keys cannot be read", read_meanwhile, || {
                self.dead_letters.parked_keys(name)
            })
            .await?;
        self.parked = keys.into_iter().filter(|key| !stands_alone(key)).collect();
        self.parked_read = Some(self.clock.instant());
        self.count_parked(read_meanwhile).await
    }

    /// Counts the dead letters and tells of them.
    async fn count_parked(&self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        let own = DeadLetterFilter {
            consumer: Some(self.projection.name().to_owned()),
            key: None,
        };
        let letters = self
            .until_done("dead letters cannot be counted", read_meanwhile, || {
                self.dead_letters.count(&own)
            })
            .await?;
        self.status.0.held_back.store(letters, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("dead_letters", "projection" => self.projection.name()).set(letters as f64);
        let parked = self.parked.len() as u64;
        self.status.0.parked.store(parked, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("dead_letter_keys", "projection" => self.projection.name())
            .set(parked as f64);
        Some(())
    }

    /// Tries until it is done, with growing pauses. `None` when the service stops before.
    async fn until_done<T, E, F>(
        &self,
        trouble: &str,
        read_meanwhile: &mut Vec<Message>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Option<T>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>> + Send,
    {
        let waiting = &self.status.0.waiting_for_store;
        let name = self.projection.name();
        let work = self.shutdown.retry(BACKOFF, attempt, |error, pause| {
            waiting.store(true, Ordering::Relaxed);
            tracing::warn!(projection = name, %error, ?pause, "{trouble}; trying again");
        });
        let done = self.alive_during(work, read_meanwhile).await?;
        if waiting.swap(false, Ordering::Relaxed) {
            tracing::info!(projection = name, "going on");
        }
        Some(done)
    }

    /// Keeps the group membership alive while `work` takes long: the partitions are paused and the client is polled.
    async fn alive_during<T>(
        &self,
        work: impl Future<Output = T>,
        read_meanwhile: &mut Vec<Message>,
    ) -> T {
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = self.clock.sleep(SLOW) => {}
        }
        self.member.pause();
        // Nothing is read meanwhile that would tell how far the log has gone on.
        let looking = look_up_ends(
            Arc::clone(&self.log),
            self.topic,
            self.status.clone(),
            self.clock.clone(),
        );
        let looking = AbortOnDropHandle::new(self.shutdown.spawn(looking));
        let done = loop {
            tokio::select! {
                biased;
                done = &mut work => break done,
                received = self.member.next() => match received {
                    // Read before the pause took effect, or of a partition that was assigned since: kept for the next
                    // batch, in order.
                    Ok(message) => {
                        if !fault::is_on(Fault::ReadMeanwhileDropped) {
                            read_meanwhile.push(message);
                        }
                        self.member.pause();
                    }
                    Err(error) => {
                        tracing::debug!(%error, "while waiting");
                        self.clock.sleep(BREATH).await;
                    }
                }
            }
        };
        drop(looking);
        self.status.0.grown.store(0, Ordering::Relaxed);
        self.member.resume();
        done
    }
}

/// For each partition the offset behind the last message.
fn offsets_behind(last: &HashMap<i32, Checkpoint>) -> Offsets {
    last.iter()
        .map(|(partition, checkpoint)| (*partition, checkpoint.offset + 1))
        .collect()
}

/// Of each partition of a batch the last message.
fn last_of(batch: &[Message]) -> HashMap<i32, Checkpoint> {
    let mut last: HashMap<i32, &Message> = HashMap::new();
    for message in batch {
        let known = last.entry(message.position.partition).or_insert(message);
        if message.position.offset > known.position.offset {
            *known = message;
        }
    }
    last.into_iter()
        .map(|(partition, message)| (partition, Checkpoint::of(message)))
        .collect()
}

async fn until(clock: &Clock, due: Option<Instant>) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Looks up where the partitions end, now and then, until it is dropped.
async fn look_up_ends(
    log: Arc<dyn Log>,
    topic: &'static str,
    status: ProjectionStatus,
    clock: Clock,
) {
    let mut began = None;
    loop {
        match log.topic(topic).await {
            Ok(state) => {
                let end: i64 = state.ends.values().map(|(_, end)| end).sum();
                let grown = end - *began.get_or_insert(end);
                status.0.grown.store(grown.max(0), Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(topic, %error, "the ends of the log are not known"),
        }
        clock.sleep(ENDS_REFRESH).await;
    }
}

/// A message as it was read.
struct Decoded<I> {
    message: Message,
    content: Result<I, Rejection>,
    /// What keeps it in order with others, if that was told.
    key: Option<String>,
}

/// What keeps a message in order with others: none goes ahead of a dead letter of its key.
fn key_of<P: Projection>(
    projection: &P,
    message: &Message,
    content: &Result<P::Item, Rejection>,
) -> String {
    match content {
        Err(rejection) if rejection.stands_alone => alone(message),
        Err(_) => ordering_key(message, None),
        Ok(item) => ordering_key(message, Some(projection.subject(item))),
    }
}

/// A batch, sorted.
struct Sorted<I> {
    /// What can be taken, each message with its item at the same place.
    messages: Vec<Message>,
    items: Vec<I>,
    letters: Vec<DeadLetter>,
    /// Keys that were settled.
    settled: Vec<String>,
}

impl<I> Sorted<I> {
    fn take(&mut self, message: Message, item: I) {
        self.messages.push(message);
        self.items.push(item);
    }
}
