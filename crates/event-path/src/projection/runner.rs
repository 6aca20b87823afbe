//! Runs one projection: reads messages, has the projection write them, and stores the offsets that are durable.

mod set_aside;

use std::{
    collections::{HashMap, HashSet},
    future::ready,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tandem_model::{
    message::{Message, Position},
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
use tokio_util::task::AbortOnDropHandle;

use super::{Projection, ProjectionStatus};
use crate::{
    checkpoint::Checkpoint,
    dead_letter_topic::DeadLetterTopic,
    fault::{self, Fault},
    log::{Log, Member, Offsets},
    spans::Processing,
    store::{DeadLetterStore, StoreError, WriteEpoch},
};
use set_aside::{Decoded, Sorted};

/// Messages in one batch.
const BATCH: usize = 2_000;
/// A write that takes longer than this pauses reading, so that this member stays in the group.
const SLOW: Duration = Duration::from_millis(500);
/// How long shown messages may wait until they are made durable, and how many may wait.
const SHOWN: Duration = Duration::from_millis(200);
const SHOWN_AT_MOST: usize = BATCH;
/// The histogram of the time until changes are visible to readers.
const VISIBLE: &str = "change_visible_seconds";
/// How long making messages durable may take when the service stops.
const FAREWELL: Duration = Duration::from_millis(500);
/// The pauses after a failure.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
/// The pause after an error of the client, which recovers by itself.
const BREATH: Duration = Duration::from_millis(50);
/// Longest wait for the last commit and for leaving the group.
const LEAVE_LIMIT: Duration = Duration::from_millis(800);
/// How often the parked keys are read again, so that keys which an operator released continue.
const PARKED_REFRESH: Duration = Duration::from_secs(2);
/// How often the ends of the log are read while nothing else reports them.
const ENDS_REFRESH: Duration = Duration::from_secs(5);

/// A running projection.
pub(super) struct Runner<P: Projection> {
    pub(super) projection: Arc<P>,
    pub(super) topic: &'static str,
    pub(super) group: String,
    /// Changes that were made before this are not measured. They are read late or again, and would distort the
    /// histogram.
    pub(super) started: DateTime<Utc>,
    /// The spans of the messages that are being processed.
    pub(super) processing: Processing,
    pub(super) member: Box<dyn Member>,
    pub(super) log: Arc<dyn Log>,
    pub(super) copies: DeadLetterTopic,
    pub(super) dead_letters: Arc<dyn DeadLetterStore>,
    pub(super) parked: HashSet<String>,
    pub(super) parked_read: Option<Instant>,
    pub(super) shown: Option<Shown<P::Item>>,
    /// For each partition, the last processed message whose offset is not stored for commit yet.
    pub(super) taken: HashMap<i32, Checkpoint>,
    /// For each partition, the offset of the last message that arrived.
    pub(super) newest: HashMap<i32, i64>,
    pub(super) status: ProjectionStatus,
    pub(super) clock: Clock,
    pub(super) shutdown: Shutdown,
}

/// Messages that readers see and that the store may still lose.
pub(super) struct Shown<I> {
    epoch: WriteEpoch,
    /// Whether the store has begun another epoch since the first of these writes.
    epoch_changed: bool,
    messages: Vec<(Position, I)>,
    /// When they must be made durable.
    due: Instant,
}

impl<P: Projection> Runner<P> {
    /// Reads and reports what was parked before the start, because the first message may come late. `None` when the
    /// service stops before.
    pub(super) async fn recall_parked(&mut self) -> Option<()> {
        // No messages arrive before the subscription.
        self.read_parked(&mut Vec::new()).await
    }

    pub(super) async fn run(mut self) {
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

    /// When something must be done even if no message arrives: shown messages must be made durable, or the parked keys
    /// must be read again.
    fn due(&self) -> Option<Instant> {
        let shown = self.shown.as_ref().map(|shown| shown.due);
        let parked = self.parked_read.map(|read| read + PARKED_REFRESH);
        let parked = parked.filter(|_| self.status.held_back() > 0);
        shown.into_iter().chain(parked).min()
    }

    /// Processes a batch, which may be empty, and makes shown messages durable when it is time. Returns messages that
    /// were read in the meantime, or `None` when the service stops.
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
            if fault::is_ordered(fault::Instant::AfterEarlyCommit, self.projection.name()) {
                return Some(());
            }
        }
        let readable = self.opened(messages, items, read_meanwhile).await?;
        let count = readable.len() as u64;
        if !readable.is_empty() {
            let changed = self.changed_at(&readable);
            let traced = self.processing.traces();
            self.apply_early(readable, read_meanwhile).await?;
            self.measure_visible(&changed, &traced);
        }
        // The spans end here, because the messages are visible already. They may become durable later.
        self.processing = Processing::default();
        for key in settled {
            self.settle(&key, read_meanwhile).await?;
        }
        // Only after the write: a service that stops while the store is unavailable must not commit unwritten messages.
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

    /// When the changes in these items were made, and their positions. Leaves out changes from before the start.
    fn changed_at(&self, items: &[(Position, P::Item)]) -> Vec<(Position, DateTime<Utc>)> {
        let made = items
            .iter()
            .filter_map(|(at, item)| Some((*at, self.projection.changed_at(item)?)));
        made.filter(|(_, made)| *made >= self.started).collect()
    }

    /// Records the time until changes are visible here. The time compares two clocks: the producer's and this one.
    fn measure_visible(
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

    /// Notes messages that are not known to be behind those before them.
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

    /// Writes decoded messages, however long the store is unavailable. `None` when the service stops before.
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

    /// Makes shown messages durable and stores the offsets of all processed messages. `None` when the service stops
    /// before.
    async fn confirm_durable(&mut self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        if let Some(shown) = &self.shown {
            self.until_done("the store is away", read_meanwhile, || {
                self.make_durable(shown)
            })
            .await?;
        }
        self.shown = None;
        fault::abort_if_ordered(fault::Instant::BeforeCommit, self.projection.name());
        if let Err(error) = self.member.store(&offsets_behind(&self.taken)) {
            // The partitions were assigned to another member. It reads these messages again, which changes nothing.
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

    /// Retries until it succeeds, with growing pauses. `None` when the service stops before.
    async fn until_done<T, E, F>(
        &self,
        failure: &str,
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
            tracing::warn!(projection = name, %error, ?pause, "{failure}; trying again");
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
        // While the partitions are paused, nothing else reports how far the log has grown.
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
                    // The message was read before the pause took effect, or from a partition that was assigned since.
                    // It is kept for the next batch, in order.
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

/// For each partition, the offset behind the last message.
fn offsets_behind(last: &HashMap<i32, Checkpoint>) -> Offsets {
    last.iter()
        .map(|(partition, checkpoint)| (*partition, checkpoint.offset + 1))
        .collect()
}

/// The last message of each partition in a batch.
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

/// Reads the ends of the partitions at intervals, until the future is dropped.
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
