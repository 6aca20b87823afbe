//! The relay: publishes pending events in order of revision per key, then clears them.
//!
//! **Order.** An event is sent only when the one before it of the same key is acknowledged, and whoever offers an event
//! offers all that is pending of its key with it. So whatever is published of a key, everything before it has been
//! published before, also when several instances publish the same backlog: the log may repeat events, it never shows
//! one ahead of an older one that was not seen yet. The next event also waits for the companions of the one before.
//!
//! **Loss.** What is offered in memory is only a hint that saves a read: a dropped hint, a crash, a failed clear or one that a
//! failover of the store undid leaves the event in the store, where the sweep finds it. One that is known to be published is cleared
//! again; one that only has the revision of a published one (its key was removed and made anew) is published.
//!
//! **Clocks.** How long an event is left to its own instance goes by the time at which it was recorded. A clock may have been wrong then: what was
//! recorded in the future is found by the first sweep, and by every tenth.
//!
//! **Refusals.** While Kafka is away the whole relay pauses. An event that Kafka will never take holds back its own key
//! alone: see `refusals`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, SystemTime},
};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, try_join_all},
    stream::FuturesUnordered,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::{
    Backlog, Companion, Outbox, PendingEvent,
    linger::AdaptiveLinger,
    refusals::{Held, Refusals},
};
use crate::{
    fault::{self, Fault},
    log::{Log, LogError, PublishError, Publisher, Record},
    spans,
    store::StoreError,
};
use tandem_model::{cloudevents, values::elapsed};
use tandem_runtime::{
    backoff::{Backoff, Pauses},
    clock::{Clock, Instant},
    shutdown::Shutdown,
    span::Span,
};

/// What a message has beside the event's body, in bytes: key, headers, framing. All of it is bounded.
const ENVELOPE: usize = 1_024;
/// Most bytes of an event's body where the log takes records of 1,000,000 bytes, as Kafka does unless it is told otherwise.
pub const LARGEST_EVENT: usize = 1_000_000 - ENVELOPE;
/// Hints that may wait to be looked at; more are dropped and left to the sweep.
const HINTS: usize = 8_192;
/// Messages on their way to Kafka at once.
const WINDOW: usize = 2_000;
/// Events held in memory; a sweep stops there and goes on later.
const HELD: usize = 20_000;
/// Events read from the store at once.
const SWEEP_PAGE: usize = 1_000;
/// Every so many sweeps what was recorded in the future is looked for, too.
const LOOK_AHEAD: u32 = 10;
/// How far, in days: a clock that is wrong by more was never set.
const AHEAD_DAYS: i64 = 36_500;
/// Keys whose newest published revision is remembered, so that a late hint is not published again.
const REMEMBERED: usize = 50_000;
/// The pauses after the log did not take a record.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long published events wait to be cleared, so that many share one write: it is not urgent, and a write of its own for each
/// would slow the commands down.
const CLEAR_PAUSE: Duration = Duration::from_millis(50);
/// So many published events are cleared without waiting.
const CLEAR_AT_ONCE: usize = 500;
/// How long events that could not be cleared wait.
const CLEAR_AGAIN: Duration = Duration::from_millis(500);
/// How long the relay goes on publishing what it holds when the service stops; the rest waits in the store.
const FAREWELL: Duration = Duration::from_millis(1_000);

/// How the relay looks after what was left behind.
#[derive(Args, Clone, Debug)]
pub struct RelaySettings {
    /// How long a change waits at most, such as `5ms`, for those before it to be acknowledged, so that it goes to Kafka together with
    /// what comes meanwhile. Longer costs everybody on the way less, and each change is known later.
    #[arg(long = "outbox-linger", env = "TANDEM_OUTBOX_LINGER", value_name = "DURATION", default_value = "5ms", value_parser = tandem_runtime::duration::parse_duration)]
    pub linger: Duration,

    /// Milliseconds between two looks for pending events that nobody offered (after a crash of this or another instance).
    #[arg(long = "outbox-sweep-ms", env = "TANDEM_OUTBOX_SWEEP_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    pub sweep_ms: u64,

    /// Milliseconds after which a pending event is taken to be left behind by its instance.
    #[arg(long = "outbox-orphan-ms", env = "TANDEM_OUTBOX_ORPHAN_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub orphan_ms: u64,

    /// Seconds after which an event that is still pending makes the service degraded. It goes on serving: nobody waits for Kafka.
    #[arg(long = "outbox-late-seconds", env = "TANDEM_OUTBOX_LATE_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub late_seconds: u64,

    /// Seconds after which an event that is still pending makes the service not ready, so that it gets no requests. Not set: never.
    #[arg(long = "outbox-unready-seconds", env = "TANDEM_OUTBOX_UNREADY_SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub unready_seconds: Option<u64>,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(5),
            sweep_ms: 1_000,
            orphan_ms: 5_000,
            late_seconds: 30,
            unready_seconds: None,
        }
    }
}

/// What the relay knows of itself.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus {
    /// What was pending in the store at the last look; `None` when the store did not answer.
    pub backlog: Option<Backlog>,
    /// The last refusal of Kafka, gone with the next success.
    pub trouble: Option<String>,
    /// How many keys have an event that Kafka does not take, whatever is tried.
    pub refused: usize,
    /// What Kafka said of the last of them, and of which key; gone with the last of them.
    pub refusal: Option<String>,
}

impl RelayStatus {
    /// Age of the oldest pending event at this time.
    #[must_use]
    pub fn oldest_age(&self, now: SystemTime) -> Duration {
        self.backlog
            .and_then(|backlog| backlog.oldest)
            .map(|oldest| elapsed(oldest, now))
            .unwrap_or_default()
    }
}

/// How long the oldest pending event has waited, by the bounds that are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// It is young, or there is none.
    None,
    /// Readers get to know of changes late.
    Late,
    /// So late that the settings want no requests sent here.
    Unready,
}

/// A running relay. Clones share it.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    hints: mpsc::Sender<Vec<PendingEvent>>,
    status: watch::Receiver<RelayStatus>,
    late_after: Duration,
    unready_after: Option<Duration>,
    largest_event: usize,
    clock: Clock,
}

impl RelayHandle {
    /// Tells the relay what is pending of one key, all of it, in order of revision. Never waits.
    pub fn offer(&self, pending: Vec<PendingEvent>) {
        if self.hints.try_send(pending).is_err() {
            metrics::counter!("outbox_hints_dropped_total").increment(1);
        }
    }

    /// Most bytes that the body of an event may have: the producer takes none that is larger.
    #[must_use]
    pub fn largest_event(&self) -> usize {
        self.largest_event
    }

    /// What the relay knows of itself now.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    /// Age of the oldest pending event now.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        self.status.borrow().oldest_age(self.clock.now())
    }

    /// Whether the oldest pending event is older than the bounds that were set: of being late, and of being ready.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        let age = self.oldest_age();
        if self.unready_after.is_some_and(|bound| age >= bound) {
            Lateness::Unready
        } else if age >= self.late_after {
            Lateness::Late
        } else {
            Lateness::None
        }
    }
}

/// Starts the relay of `outbox` to `topic`.
///
/// # Errors
/// When a setting of the log is wrong.
pub fn start(
    outbox: Arc<dyn Outbox>,
    log: &Arc<dyn Log>,
    topic: &'static str,
    settings: &RelaySettings,
    shutdown: &Shutdown,
) -> Result<RelayHandle, LogError> {
    let settings = settings.clone();
    let clock = shutdown.clock().clone();
    let (hints, hints_in) = mpsc::channel(HINTS);
    let (status_out, status) = watch::channel(RelayStatus::default());
    let relay = Relay {
        publisher: log.publisher()?,
        log: Arc::clone(log),
        outbox,
        topic,
        keys: HashMap::new(),
        ready: VecDeque::new(),
        held: 0,
        published: Remembered::default(),
        published_count: metrics::counter!("outbox_published_total", "topic" => topic),
        published_after: metrics::histogram!("change_published_seconds", "topic" => topic),
        started: clock.now().into(),
        to_clear: HashMap::new(),
        paused_until: None,
        pauses: BACKOFF.pauses(&clock),
        refusals: Refusals::default(),
        companions_are_taken: false,
        sweeps: 0,
        looks_ahead: true,
        status: status_out,
        clock: clock.clone(),
    };
    let handle = RelayHandle {
        hints,
        status,
        late_after: Duration::from_secs(settings.late_seconds),
        unready_after: settings.unready_seconds.map(Duration::from_secs),
        largest_event: log.largest_record().saturating_sub(ENVELOPE),
        clock,
    };
    let stop = shutdown.token();
    shutdown.spawn(relay.run(hints_in, settings, stop));
    Ok(handle)
}

/// What is held of one key.
#[derive(Default)]
struct KeyQueue {
    waiting: VecDeque<PendingEvent>,
    in_flight: Option<i64>,
}

/// An event that was published.
#[derive(Clone, Copy)]
struct Published {
    revision: i64,
    /// The event's id.
    id: Uuid,
}

impl Published {
    fn is(self, event: &PendingEvent) -> bool {
        self.revision == event.revision && self.id == event.event.id
    }
}

/// The newest published event of the keys seen lately, in two generations so that it stays bounded.
#[derive(Default)]
struct Remembered {
    young: HashMap<String, Published>,
    old: HashMap<String, Published>,
}

impl Remembered {
    fn get(&self, key: &str) -> Option<Published> {
        let young = self.young.get(key);
        young.or_else(|| self.old.get(key)).copied()
    }

    fn set(&mut self, key: &str, event: &PendingEvent) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        let published = Published {
            revision: event.revision,
            id: event.event.id,
        };
        self.young.insert(key.to_owned(), published);
    }

    fn forget(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}

struct Relay {
    outbox: Arc<dyn Outbox>,
    log: Arc<dyn Log>,
    publisher: Arc<dyn Publisher>,
    topic: &'static str,
    keys: HashMap<String, KeyQueue>,
    /// Keys that have something to send and nothing in flight.
    ready: VecDeque<String>,
    held: usize,
    published: Remembered,
    published_count: metrics::Counter,
    published_after: metrics::Histogram,
    /// What was made before this says nothing of how soon changes are published.
    started: DateTime<Utc>,
    to_clear: HashMap<String, i64>,
    paused_until: Option<Instant>,
    pauses: Pauses,
    refusals: Refusals,
    /// Whether Kafka took the last companions: an event does not go out with a key that may be refused.
    companions_are_taken: bool,
    /// Sweeps begun so far.
    sweeps: u32,
    /// Whether the present sweep looks for what was recorded in the future, too.
    looks_ahead: bool,
    status: watch::Sender<RelayStatus>,
    clock: Clock,
}

/// What became of a clear; what was not cleared comes back.
type Cleared = Result<(), (StoreError, Vec<(String, i64)>)>;

/// What became of an event that was sent.
struct Delivery {
    key: String,
    event: PendingEvent,
    result: Result<(), PublishError>,
    span: Span,
}

impl Relay {
    async fn run(
        mut self,
        mut hints: mpsc::Receiver<Vec<PendingEvent>>,
        settings: RelaySettings,
        stop: tokio_util::sync::CancellationToken,
    ) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Delivery>> = FuturesUnordered::new();
        let mut clearing: Option<BoxFuture<'static, Cleared>> = None;
        let mut sweeping: Option<BoxFuture<'static, Swept>> = None;
        let mut sweep_from: Option<String> = None;
        let mut first_sweep = true;
        let mut clear_at: Option<Instant> = None;
        let mut clear_not_before = self.clock.instant();
        let sweep_every = Duration::from_millis(settings.sweep_ms);
        let mut sweep_at = self.clock.instant();
        let mut farewell: Option<Instant> = None;
        if !self.await_topics(&stop).await {
            return;
        }
        let mut offered = Vec::new();
        let mut linger = AdaptiveLinger::new(settings.linger);
        loop {
            let mut gathered = None;
            if !offered.is_empty() {
                let now = self.clock.instant();
                let due = linger.due(in_flight.len(), now);
                if due <= now || farewell.is_some() {
                    linger.sent(now);
                    for pending in offered.drain(..) {
                        self.hold(pending);
                    }
                } else {
                    gathered = Some(due);
                }
            }
            if self
                .paused_until
                .is_some_and(|end| self.clock.instant() >= end)
            {
                self.paused_until = None;
            }
            self.send_ready(&mut in_flight);
            let mut clear_due = None;
            if clearing.is_none() && !self.to_clear.is_empty() {
                let now = self.clock.instant();
                let is_urgent = self.to_clear.len() >= CLEAR_AT_ONCE || farewell.is_some();
                let gathered = *clear_at.get_or_insert(now + CLEAR_PAUSE);
                clear_due = Some(if is_urgent { now } else { gathered }.max(clear_not_before));
            }
            if clear_due.is_some_and(|due| self.clock.instant() >= due) {
                (clear_at, clear_due) = (None, None);
                fault::abort_if_told(fault::Instant::BeforeClear, self.topic);
                let batch: Vec<_> = std::mem::take(&mut self.to_clear).into_iter().collect();
                let outbox = Arc::clone(&self.outbox);
                clearing = Some(
                    async move {
                        outbox
                            .clear(batch.clone())
                            .await
                            .map_err(|error| (error, batch))
                    }
                    .boxed(),
                );
            }
            let nothing_left =
                in_flight.is_empty() && clearing.is_none() && self.to_clear.is_empty();
            if farewell
                .is_some_and(|end| self.clock.instant() >= end || (nothing_left && self.held == 0))
            {
                return;
            }
            let sweep_due = (sweeping.is_none() && farewell.is_none()).then_some(sweep_at);
            if sweep_due.is_some_and(|due| self.clock.instant() >= due) {
                sweep_at = self.clock.instant() + sweep_every;
                let is_done = !first_sweep && fault::is_on(Fault::SweptOnce);
                if self.held < HELD && !is_done {
                    if sweep_from.is_none() {
                        self.looks_ahead = self.sweeps.is_multiple_of(LOOK_AHEAD);
                        self.sweeps = self.sweeps.wrapping_add(1);
                    }
                    sweeping = Some(self.sweep(&settings, first_sweep, sweep_from.take()));
                }
            }
            let sweep_due = sweep_due.map(|_| sweep_at);
            let wake = [self.paused_until, farewell, clear_due, gathered, sweep_due]
                .into_iter()
                .flatten()
                .min();
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                () = stop.cancelled(), if farewell.is_none() => farewell = Some(self.clock.instant() + FAREWELL),
                Some(delivery) = in_flight.next(), if !in_flight.is_empty() => {
                    let Delivery { key, event, result, mut span } = delivery;
                    if let Err(error) = &result {
                        span.fail(error.to_string());
                    }
                    drop(span);
                    self.settle(&key, event, result);
                }
                cleared = maybe(&mut clearing) => {
                    clearing = None;
                    if let Err((error, batch)) = cleared {
                        tracing::warn!(%error, events = batch.len(), "published events could not be cleared; trying again");
                        for (key, revision) in batch {
                            let newest = self.to_clear.entry(key).or_default();
                            *newest = revision.max(*newest);
                        }
                        clear_not_before = self.clock.instant() + CLEAR_AGAIN;
                    }
                }
                swept = maybe(&mut sweeping) => {
                    sweeping = None;
                    sweep_from = self.take_sweep(swept, &mut first_sweep);
                    if sweep_from.is_some() && self.held < HELD {
                        sweeping = Some(self.sweep(&settings, first_sweep, sweep_from.take()));
                    }
                }
                count = hints.recv_many(&mut offered, 1_024), if self.held < HELD && offered.len() < HINTS && farewell.is_none() => {
                    if count == 0 {
                        farewell.get_or_insert(self.clock.instant() + FAREWELL);
                    }
                }
                () = until(&clock, wake), if wake.is_some() => {}
            }
        }
    }

    /// Waits until the topics are there; meanwhile the backlog is looked at, so that readiness tells the truth.
    async fn await_topics(&mut self, stop: &tokio_util::sync::CancellationToken) -> bool {
        let (log, clock) = (Arc::clone(&self.log), self.clock.clone());
        let mut look_at = clock.instant();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                ready = log.ready() => {
                    self.status.send_modify(|status| status.trouble = None);
                    return ready;
                }
                () = clock.sleep_until(look_at) => {
                    look_at = clock.instant() + Duration::from_secs(1);
                    let backlog = self.outbox.backlog().await.ok();
                    let trouble = self.log.failure();
                    self.tell(backlog, trouble);
                }
            }
        }
    }

    /// Holds what is not published and not held yet.
    fn hold(&mut self, pending: Vec<PendingEvent>) {
        let now = self.clock.instant();
        for event in pending {
            if self.refusals.is_held(&event.key, now) {
                continue;
            }
            let published = self.published.get(&event.key);
            if published.is_some_and(|published| event.revision <= published.revision) {
                continue;
            }
            let queue = self.keys.entry(event.key.clone()).or_default();
            if queue
                .in_flight
                .is_some_and(|revision| event.revision <= revision)
            {
                continue;
            }
            let place = queue
                .waiting
                .partition_point(|held| held.revision < event.revision);
            if queue
                .waiting
                .get(place)
                .is_some_and(|held| held.revision == event.revision)
            {
                continue;
            }
            if queue.waiting.is_empty() && queue.in_flight.is_none() {
                self.ready.push_back(event.key.clone());
            }
            queue.waiting.insert(place, event);
            self.held += 1;
        }
    }

    /// Sends the next event of each key that has one and nothing in flight.
    fn send_ready(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Delivery>>) {
        if self.paused_until.is_some() {
            return;
        }
        while in_flight.len() < WINDOW {
            let Some(key) = self.ready.pop_front() else {
                return;
            };
            let Some(event) = self
                .keys
                .get_mut(&key)
                .and_then(|queue| queue.waiting.pop_front())
            else {
                continue;
            };
            fault::abort_if_told(fault::Instant::BeforePublish, self.topic);
            if fault::is_on(Fault::ClearBeforePublish) {
                self.to_clear.insert(key.clone(), event.revision);
            }
            let span = spans::publishing(self.topic, &event.key, &event.event);
            if !event.companions.is_empty() {
                self.flies(&key, event.revision);
                let (publisher, topic) = (Arc::clone(&self.publisher), self.topic);
                let together = self.companions_are_taken && may_go_together(&event);
                in_flight.push(
                    async move {
                        let result =
                            send_with_companions(&*publisher, topic, &event, together).await;
                        Delivery {
                            key,
                            event,
                            result,
                            span,
                        }
                    }
                    .boxed(),
                );
                continue;
            }
            match self.publisher.send(&record_of(self.topic, &event)) {
                Ok(delivery) => {
                    self.flies(&key, event.revision);
                    in_flight.push(
                        async move {
                            let result = delivery.await.map(drop);
                            Delivery {
                                key,
                                event,
                                result,
                                span,
                            }
                        }
                        .boxed(),
                    );
                }
                Err(error) => {
                    if matches!(error, PublishError::Refused(_)) && self.refuse(&event, &error) {
                        continue;
                    }
                    if let Some(queue) = self.keys.get_mut(&key) {
                        queue.waiting.push_front(event);
                    }
                    self.ready.push_front(key);
                    self.back_off(&error);
                    return;
                }
            }
        }
    }

    /// Takes note that a revision of a key is on its way.
    fn flies(&mut self, key: &str, revision: i64) {
        if let Some(queue) = self.keys.get_mut(key) {
            queue.in_flight = Some(revision);
            if fault::is_on(Fault::KeyOrderOvertaken) && !queue.waiting.is_empty() {
                self.ready.push_back(key.to_owned());
            }
        }
    }

    /// Takes note of what Kafka said of one message.
    fn settle(&mut self, key: &str, event: PendingEvent, result: Result<(), PublishError>) {
        let Some(queue) = self.keys.get_mut(key) else {
            return;
        };
        queue.in_flight = None;
        let result = match result {
            Err(PublishError::Away(_)) if fault::is_on(Fault::FailureTakenForSuccess) => Ok(()),
            result => result,
        };
        if !event.companions.is_empty() {
            self.companions_are_taken = result.is_ok();
        }
        match result {
            Ok(()) => {
                self.held = self.held.saturating_sub(1);
                self.published.set(key, &event);
                self.refusals.release(key);
                let newest = self.to_clear.entry(key.to_owned()).or_default();
                *newest = event.revision.max(*newest);
                self.published_count.increment(1);
                if queue.waiting.is_empty() {
                    self.keys.remove(key);
                } else {
                    self.ready.push_back(key.to_owned());
                }
                self.tell_published(&event);
                self.pauses.reset();
                if self.status.borrow().trouble.is_some() {
                    tracing::info!(topic = self.topic, "events are published again");
                    self.status.send_modify(|status| status.trouble = None);
                }
            }
            Err(PublishError::Neighbour(_)) => {
                queue.waiting.push_front(event);
                self.ready.push_back(key.to_owned());
            }
            Err(error @ PublishError::Refused(_)) if self.refuse(&event, &error) => {}
            Err(error) => {
                let queue = self.keys.entry(key.to_owned()).or_default();
                queue.waiting.push_front(event);
                self.ready.push_back(key.to_owned());
                self.back_off(&error);
            }
        }
    }

    /// Counts how long it took from the change to Kafka's acknowledgement.
    fn tell_published(&self, event: &PendingEvent) {
        let made = event.event.time;
        if made >= self.started {
            let since = elapsed(made, self.clock.now());
            self.published_after.record(since.as_secs_f64());
        }
    }

    /// Holds back the key of an event that Kafka does not take: nothing of it is kept here, the store has it, and the sweep
    /// offers it again. Returns false when it is to be treated as trouble of Kafka's.
    fn refuse(&mut self, event: &PendingEvent, error: &PublishError) -> bool {
        let key = &event.key;
        match self.refusals.hold(key, &self.clock) {
            Held::TooMany => return false,
            Held::Quietly => {}
            Held::Loudly => {
                let (revision, bytes, refused) = (
                    event.revision,
                    event.event.data.len(),
                    self.refusals.count(),
                );
                tracing::error!(%error, topic = self.topic, key, revision, bytes, refused, "Kafka will not take an event; its key waits, all others go on");
            }
        }
        let waiting = self.keys.remove(key).map_or(0, |queue| queue.waiting.len());
        self.held = self.held.saturating_sub(waiting + 1);
        let refusal = format!("{key}, revision {}: {error}", event.revision);
        self.status
            .send_modify(|status| status.refusal = Some(refusal));
        self.count_refused();
        true
    }

    fn count_refused(&self) {
        let refused = self.refusals.count();
        #[allow(clippy::cast_precision_loss)] // there are at most thousands
        metrics::gauge!("outbox_refused_events", "topic" => self.topic).set(refused as f64);
        self.status.send_if_modified(|status| {
            let is_new = status.refused != refused;
            status.refused = refused;
            if refused == 0 {
                status.refusal = None;
            }
            is_new
        });
    }

    fn back_off(&mut self, error: &PublishError) {
        // A record that was not delivered in time does not know why; the log does.
        let reason = self.log.failure();
        let is_full = matches!(error, PublishError::Full(_));
        if self.paused_until.is_none() {
            let pause = self.pauses.next_pause();
            if !is_full {
                tracing::warn!(%error, reason, topic = self.topic, held = self.held, ?pause, "Kafka did not take an event; trying again");
            }
            self.paused_until = Some(self.clock.instant() + pause);
        }
        if !is_full {
            let trouble = reason.unwrap_or_else(|| error.to_string());
            self.status
                .send_modify(|status| status.trouble = Some(trouble));
        }
    }

    fn sweep(
        &self,
        settings: &RelaySettings,
        everything: bool,
        after: Option<String>,
    ) -> BoxFuture<'static, Swept> {
        let outbox = Arc::clone(&self.outbox);
        let orphaned = if everything {
            Duration::ZERO
        } else {
            Duration::from_millis(settings.orphan_ms)
        };
        let now = DateTime::<Utc>::from(self.clock.now());
        let age = TimeDelta::from_std(orphaned).unwrap_or_else(|_| TimeDelta::zero());
        let before = if self.looks_ahead {
            now + TimeDelta::days(AHEAD_DAYS)
        } else {
            now - age
        };
        // Who looks ahead is given what was recorded just now, too: that is its instance's to publish.
        let is_recent = move |oldest: &PendingEvent| (now - oldest.recorded_at).abs() < age;
        let finds_recent = self.looks_ahead && !everything;
        async move {
            let backlog = outbox.backlog().await;
            let mut events = outbox.pending(before, after.as_deref(), SWEEP_PAGE).await;
            let next = match &mut events {
                Ok(events) => {
                    let is_full = events.len() >= SWEEP_PAGE;
                    let next = events.last().filter(|_| is_full).map(|it| it.key.clone());
                    if finds_recent {
                        let of_keys = events.chunk_by(|one, other| one.key == other.key);
                        let oldest = of_keys.filter_map(<[_]>::first);
                        let recent: HashSet<String> = oldest
                            .filter(|oldest| is_recent(oldest))
                            .map(|oldest| oldest.key.clone())
                            .collect();
                        events.retain(|event| !recent.contains(&event.key));
                    }
                    next
                }
                Err(_) => None,
            };
            Swept {
                backlog,
                events,
                next,
            }
        }
        .boxed()
    }

    /// Holds what a sweep found. Returns where the next page begins, if there is one.
    fn take_sweep(&mut self, swept: Swept, first: &mut bool) -> Option<String> {
        let trouble = self.status.borrow().trouble.clone();
        self.refusals.tidy(self.clock.instant());
        self.count_refused();
        match swept.backlog {
            Ok(backlog) => self.tell(Some(backlog), trouble),
            Err(error) => {
                tracing::warn!(%error, "pending events cannot be counted");
                self.tell(None, trouble);
            }
        }
        let Ok(events) = swept.events else {
            return None;
        };
        if !events.is_empty() && *first {
            tracing::info!(
                events = events.len(),
                topic = self.topic,
                "publishing what was left pending"
            );
        }
        for of_one in events.chunk_by(|one, other| one.key == other.key) {
            self.judge_left(of_one);
        }
        self.hold(events);
        if swept.next.is_none() {
            *first = false;
        }
        swept.next
    }

    /// Judges what the sweep found of one key, all that is pending of it: published events that are pending still, or again, are cleared
    /// once more.
    fn judge_left(&mut self, pending: &[PendingEvent]) {
        let Some(oldest) = pending.first() else {
            return;
        };
        let key = oldest.key.as_str();
        let Some(published) = self.published.get(key) else {
            return;
        };
        if oldest.revision > published.revision {
            return;
        }
        if pending.iter().any(|event| published.is(event)) {
            metrics::counter!("outbox_cleared_again_total", "topic" => self.topic).increment(1);
            let newest = self.to_clear.entry(key.to_owned()).or_default();
            *newest = published.revision.max(*newest);
        } else {
            // Whether these were published is not known: the log may repeat events, and must not miss one.
            self.published.forget(key);
        }
    }

    fn tell(&self, backlog: Option<Backlog>, trouble: Option<String>) {
        self.status.send_modify(|status| {
            status.backlog = backlog;
            status.trouble = trouble;
        });
        let age = self.status.borrow().oldest_age(self.clock.now());
        metrics::gauge!("outbox_pending_events", "topic" => self.topic)
            .set(as_gauge(backlog.unwrap_or_default().events));
        metrics::gauge!("outbox_oldest_pending_seconds", "topic" => self.topic)
            .set(age.as_secs_f64());
    }
}

/// Whether an event and its companions may be sent at once: what takes something away goes ahead of the event that says so.
fn may_go_together(event: &PendingEvent) -> bool {
    event
        .companions
        .iter()
        .all(|companion| companion.payload.is_some())
}

/// Sends an event with its companions; it counts as published when all are acknowledged. `together` saves a way to the log and back, and
/// readers wait for a companion that is late; otherwise each is sent when the one before it is acknowledged, the event last.
async fn send_with_companions(
    publisher: &dyn Publisher,
    topic: &str,
    event: &PendingEvent,
    together: bool,
) -> Result<(), PublishError> {
    let mut deliveries = Vec::with_capacity(event.companions.len());
    for companion in &event.companions {
        let delivery = publisher.send(&companion_record(companion))?;
        if together {
            deliveries.push(delivery);
        } else {
            delivery.await?;
        }
    }
    deliveries.push(publisher.send(&record_of(topic, event))?);
    try_join_all(deliveries).await.map(drop)
}

fn companion_record(companion: &Companion) -> Record<'_> {
    let payload = companion.payload.as_deref().map(str::as_bytes);
    Record::new(&companion.topic, &companion.key, payload)
}

fn record_of<'a>(topic: &'a str, event: &'a PendingEvent) -> Record<'a> {
    Record {
        headers: cloudevents::headers(&event.event),
        ..Record::new(topic, &event.key, Some(event.event.data.as_bytes()))
    }
}

#[allow(clippy::cast_precision_loss)] // a gauge of 2^53 events is exact enough
fn as_gauge(count: u64) -> f64 {
    count as f64
}

struct Swept {
    backlog: Result<Backlog, StoreError>,
    events: Result<Vec<PendingEvent>, StoreError>,
    /// Behind which key the next page begins, if there is one.
    next: Option<String>,
}

/// Waits for the future if there is one, for ever if there is none.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(clock: &Clock, moment: Option<Instant>) {
    match moment {
        Some(moment) => clock.sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
