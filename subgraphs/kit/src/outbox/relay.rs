//! The relay: publishes pending events in order of revision per key, then clears them.
//!
//! **Order.** An event is sent only when the one before it of the same key is acknowledged, and whoever offers an event
//! offers all that is pending of its key with it. So whatever is published of a key, everything before it has been
//! published before, also when several instances publish the same backlog: the log may repeat events, it never shows
//! one ahead of an older one that was not seen yet. The next event also waits for the companions of the one before.
//!
//! **Loss.** What is offered in memory is only a hint that saves a read: a dropped hint, a crash or a failed clear
//! leaves the event in the store, where the sweep finds it.
//!
//! **Refusals.** While Kafka is away the whole relay pauses. An event that Kafka will never take holds back its own key
//! alone: see `refusals`.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord, Producer},
    util::Timeout,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    Backlog, Companion, Outbox, PendingEvent,
    pace::Pace,
    refusals::{Held, Refusals, is_of_a_neighbour, is_of_the_message},
};
use crate::{
    fault::{self, Fault},
    kafka::{ClientError, cloudevents, connection::Kafka, settings::LARGEST_MESSAGE},
    shutdown::Shutdown,
    store::StoreError,
};

/// What a message has beside the event's body, in bytes: key, headers, framing. All of it is bounded.
const ENVELOPE: usize = 1_024;
/// Most bytes of an event's body with librdkafka's own settings.
pub const LARGEST_EVENT: usize = LARGEST_MESSAGE - ENVELOPE;
/// Hints that may wait to be looked at; more are dropped and left to the sweep.
const HINTS: usize = 8_192;
/// Messages on their way to Kafka at once.
const WINDOW: usize = 2_000;
/// Events held in memory; a sweep stops there and goes on later.
const HELD: usize = 20_000;
/// Events read from the store at once.
const SWEEP_PAGE: usize = 1_000;
/// Keys whose newest published revision is remembered, so that a late hint is not published again.
const REMEMBERED: usize = 50_000;
/// First and longest pause after Kafka refused a message.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long published events wait to be cleared, so that many share one write: it is not urgent, and a write of its own for each
/// would slow the commands down.
const CLEAR_PAUSE: Duration = Duration::from_millis(50);
/// So many published events are cleared without waiting.
const CLEAR_AT_ONCE: usize = 500;
/// How long events that could not be cleared wait.
const CLEAR_AGAIN: Duration = Duration::from_millis(500);
/// How long an event with companions waits for room in the producer's queue.
const QUEUE_WAIT: Duration = Duration::from_secs(5);
/// How long the relay goes on publishing what it holds when the service stops; the rest waits in the store.
const FAREWELL: Duration = Duration::from_millis(1_000);

/// How the relay looks after what was left behind.
#[derive(Args, Clone, Debug)]
pub struct RelaySettings {
    /// Milliseconds between two looks for pending events that nobody offered (after a crash of this or another instance).
    #[arg(long = "outbox-sweep-ms", env = "TANDEM_OUTBOX_SWEEP_MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    pub sweep_ms: u64,

    /// Milliseconds after which a pending event is taken to be left behind by its instance.
    #[arg(long = "outbox-orphan-ms", env = "TANDEM_OUTBOX_ORPHAN_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    pub orphan_ms: u64,

    /// Seconds after which an event that is still pending makes the service not ready.
    #[arg(long = "outbox-unready-seconds", env = "TANDEM_OUTBOX_UNREADY_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub unready_seconds: u64,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self {
            sweep_ms: 1_000,
            orphan_ms: 5_000,
            unready_seconds: 30,
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
    /// Age of the oldest pending event.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        self.backlog
            .and_then(|backlog| backlog.oldest)
            .and_then(|oldest| (Utc::now() - oldest).to_std().ok())
            .unwrap_or_default()
    }
}

/// A running relay. Clones share it.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    hints: mpsc::Sender<Vec<PendingEvent>>,
    status: watch::Receiver<RelayStatus>,
    unready_after: Duration,
    largest_event: usize,
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

    /// Whether the oldest pending event is younger than the bound that was set.
    #[must_use]
    pub fn is_timely(&self) -> bool {
        self.status().oldest_age() < self.unready_after
    }
}

/// Starts the relay of `outbox` to `topic`.
///
/// # Errors
/// When a property is not one of librdkafka's or has a value that it does not take.
pub fn start(
    outbox: Arc<dyn Outbox>,
    kafka: &Kafka,
    topic: &'static str,
    settings: &RelaySettings,
    shutdown: &Shutdown,
) -> Result<RelayHandle, ClientError> {
    let (hints, hints_in) = mpsc::channel(HINTS);
    let (status_out, status) = watch::channel(RelayStatus::default());
    let relay = Relay {
        producer: producer(kafka)?,
        kafka: kafka.clone(),
        outbox,
        topic,
        keys: HashMap::new(),
        ready: VecDeque::new(),
        held: 0,
        published: Remembered::default(),
        published_count: metrics::counter!("outbox_published_total", "topic" => topic),
        to_clear: HashMap::new(),
        paused_until: None,
        pause: FIRST_PAUSE,
        refusals: Refusals::default(),
        companions_are_taken: false,
        status: status_out,
    };
    let handle = RelayHandle {
        hints,
        status,
        unready_after: Duration::from_secs(settings.unready_seconds),
        largest_event: kafka.settings().largest_message().saturating_sub(ENVELOPE),
    };
    let (settings, stop) = (settings.clone(), shutdown.token());
    shutdown.spawn(relay.run(hints_in, settings, stop));
    Ok(handle)
}

fn producer(kafka: &Kafka) -> Result<FutureProducer, ClientError> {
    let config = kafka.settings().client_config_with(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "30000"),
    ]);
    config.create().map_err(|source| ClientError {
        purpose: "the relay's producer",
        source,
    })
}

/// What is held of one key.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<PendingEvent>,
    in_flight: Option<i64>,
}

/// The newest published revision of the keys seen lately, in two generations so that it stays bounded.
#[derive(Default)]
struct Remembered {
    young: HashMap<String, i64>,
    old: HashMap<String, i64>,
}

impl Remembered {
    fn get(&self, key: &str) -> i64 {
        let known = |map: &HashMap<String, i64>| map.get(key).copied().unwrap_or(0);
        known(&self.young).max(known(&self.old))
    }

    fn set(&mut self, key: &str, revision: i64) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.to_owned(), revision);
    }
}

struct Relay {
    outbox: Arc<dyn Outbox>,
    kafka: Kafka,
    producer: FutureProducer,
    topic: &'static str,
    keys: HashMap<String, Lane>,
    /// Keys that have something to send and nothing in flight.
    ready: VecDeque<String>,
    held: usize,
    published: Remembered,
    published_count: metrics::Counter,
    to_clear: HashMap<String, i64>,
    paused_until: Option<Instant>,
    pause: Duration,
    refusals: Refusals,
    /// Whether Kafka took the last companions: an event does not go out with a key that may be refused.
    companions_are_taken: bool,
    status: watch::Sender<RelayStatus>,
}

/// What became of a clear; what was not cleared comes back.
type Cleared = Result<(), (StoreError, Vec<(String, i64)>)>;

/// What became of an event that was sent, and how long that took.
struct Delivery {
    key: String,
    event: PendingEvent,
    result: Result<(), KafkaError>,
    took: Duration,
}

impl Delivery {
    /// The end of what was sent at that moment.
    fn ended(
        key: String,
        event: PendingEvent,
        sent: Instant,
        result: Result<(), KafkaError>,
    ) -> Self {
        Self {
            key,
            event,
            result,
            took: sent.elapsed(),
        }
    }
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
        let mut clear_not_before = Instant::now();
        let mut ticks = interval(Duration::from_millis(settings.sweep_ms));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut farewell: Option<Instant> = None;
        if !self.await_topics(&stop).await {
            return;
        }
        let mut offered = Vec::new();
        let mut pace = Pace::new(Instant::now());
        loop {
            let mut gathered = None;
            if !offered.is_empty() {
                let now = Instant::now();
                let due = pace.due(now);
                if due <= now || farewell.is_some() {
                    pace.sent(offered.len(), now);
                    for pending in offered.drain(..) {
                        self.hold(pending);
                    }
                } else {
                    gathered = Some(due);
                }
            }
            self.send_ready(&mut in_flight);
            let mut clear_due = None;
            if clearing.is_none() && !self.to_clear.is_empty() {
                let now = Instant::now();
                let is_urgent = self.to_clear.len() >= CLEAR_AT_ONCE || farewell.is_some();
                let gathered = *clear_at.get_or_insert(now + CLEAR_PAUSE);
                clear_due = Some(if is_urgent { now } else { gathered }.max(clear_not_before));
            }
            if clear_due.is_some_and(|due| Instant::now() >= due) {
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
            if farewell.is_some_and(|end| Instant::now() >= end || (nothing_left && self.held == 0))
            {
                return;
            }
            let wake = [self.paused_until, farewell, clear_due, gathered]
                .into_iter()
                .flatten()
                .min();
            tokio::select! {
                () = stop.cancelled(), if farewell.is_none() => farewell = Some(Instant::now() + FAREWELL),
                count = hints.recv_many(&mut offered, 1_024), if self.held < HELD && offered.len() < HINTS && farewell.is_none() => {
                    let now = Instant::now();
                    if count == 0 {
                        farewell.get_or_insert(now + FAREWELL);
                    }
                    pace.arrived(count, now);
                }
                Some(delivery) = in_flight.next(), if !in_flight.is_empty() => {
                    if delivery.result.is_ok() {
                        pace.published(delivery.took);
                    }
                    self.settle(&delivery.key, delivery.event, delivery.result);
                }
                cleared = maybe(&mut clearing) => {
                    clearing = None;
                    if let Err((error, batch)) = cleared {
                        tracing::warn!(%error, events = batch.len(), "published events could not be cleared; trying again");
                        for (key, revision) in batch {
                            let newest = self.to_clear.entry(key).or_default();
                            *newest = revision.max(*newest);
                        }
                        clear_not_before = Instant::now() + CLEAR_AGAIN;
                    }
                }
                swept = maybe(&mut sweeping) => {
                    sweeping = None;
                    sweep_from = self.take_sweep(swept, &mut first_sweep);
                    if sweep_from.is_some() && self.held < HELD {
                        sweeping = Some(self.sweep(&settings, first_sweep, sweep_from.take()));
                    }
                }
                _ = ticks.tick(), if sweeping.is_none() && farewell.is_none() => {
                    if self.held < HELD {
                        sweeping = Some(self.sweep(&settings, first_sweep, sweep_from.take()));
                    }
                }
                () = until(wake), if wake.is_some() => {
                    if self.paused_until.is_some_and(|end| Instant::now() >= end) {
                        self.paused_until = None;
                    }
                }
            }
        }
    }

    /// Waits until the topics are there; meanwhile the backlog is looked at, so that readiness tells the truth.
    async fn await_topics(&mut self, stop: &tokio_util::sync::CancellationToken) -> bool {
        let mut ticks = interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                ready = self.kafka.ready() => {
                    self.status.send_modify(|status| status.trouble = None);
                    return ready;
                }
                _ = ticks.tick() => {
                    let backlog = self.outbox.backlog().await.ok();
                    let trouble = Some("Kafka has not been reached yet".to_owned());
                    self.tell(backlog, trouble);
                }
            }
        }
    }

    /// Holds what is not published and not held yet.
    fn hold(&mut self, pending: Vec<PendingEvent>) {
        let now = Instant::now();
        for event in pending {
            if self.refusals.is_held(&event.key, now) {
                continue;
            }
            if event.revision <= self.published.get(&event.key) {
                continue;
            }
            let lane = self.keys.entry(event.key.clone()).or_default();
            if lane
                .in_flight
                .is_some_and(|revision| event.revision <= revision)
            {
                continue;
            }
            let place = lane
                .waiting
                .partition_point(|held| held.revision < event.revision);
            if lane
                .waiting
                .get(place)
                .is_some_and(|held| held.revision == event.revision)
            {
                continue;
            }
            if lane.waiting.is_empty() && lane.in_flight.is_none() {
                self.ready.push_back(event.key.clone());
            }
            lane.waiting.insert(place, event);
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
                .and_then(|lane| lane.waiting.pop_front())
            else {
                continue;
            };
            fault::abort_if_told(fault::Instant::BeforePublish, self.topic);
            let sent = Instant::now();
            if fault::is_on(Fault::ClearBeforePublish) {
                self.to_clear.insert(key.clone(), event.revision);
            }
            if !event.companions.is_empty() {
                if let Some(lane) = self.keys.get_mut(&key) {
                    lane.in_flight = Some(event.revision);
                }
                let (producer, topic) = (self.producer.clone(), self.topic);
                let together = self.companions_are_taken && may_go_together(&event);
                in_flight.push(
                    async move {
                        let result = if together {
                            send_together(&producer, topic, &event).await
                        } else {
                            send_one_by_one(&producer, topic, &event).await
                        };
                        Delivery::ended(key, event, sent, result)
                    }
                    .boxed(),
                );
                continue;
            }
            let record = FutureRecord::to(self.topic)
                .key(&event.key)
                .payload(&event.event.data)
                .headers(cloudevents::headers(&event.event));
            match self.producer.send_result(record) {
                Ok(delivery) => {
                    if let Some(lane) = self.keys.get_mut(&key) {
                        lane.in_flight = Some(event.revision);
                    }
                    in_flight.push(
                        async move {
                            let result = match delivery.await {
                                Ok(Ok(_)) => Ok(()),
                                Ok(Err((error, _))) => Err(error),
                                Err(_) => Err(KafkaError::Canceled),
                            };
                            Delivery::ended(key, event, sent, result)
                        }
                        .boxed(),
                    );
                }
                Err((error, _)) => {
                    if is_of_the_message(&error) && self.refuse(&event, &error) {
                        continue;
                    }
                    if let Some(lane) = self.keys.get_mut(&key) {
                        lane.waiting.push_front(event);
                    }
                    self.ready.push_front(key);
                    self.back_off(&error);
                    return;
                }
            }
        }
    }

    /// Takes note of what Kafka said of one message.
    fn settle(&mut self, key: &str, event: PendingEvent, result: Result<(), KafkaError>) {
        let Some(lane) = self.keys.get_mut(key) else {
            return;
        };
        lane.in_flight = None;
        if !event.companions.is_empty() {
            self.companions_are_taken = result.is_ok();
        }
        match result {
            Ok(()) => {
                self.held = self.held.saturating_sub(1);
                self.published.set(key, event.revision);
                self.refusals.release(key);
                let newest = self.to_clear.entry(key.to_owned()).or_default();
                *newest = event.revision.max(*newest);
                self.published_count.increment(1);
                if lane.waiting.is_empty() {
                    self.keys.remove(key);
                } else {
                    self.ready.push_back(key.to_owned());
                }
                self.pause = FIRST_PAUSE;
                if self.status.borrow().trouble.is_some() {
                    tracing::info!(topic = self.topic, "events are published again");
                    self.status.send_modify(|status| status.trouble = None);
                }
            }
            Err(error) if is_of_a_neighbour(&error) => {
                lane.waiting.push_front(event);
                self.ready.push_back(key.to_owned());
            }
            Err(error) if is_of_the_message(&error) && self.refuse(&event, &error) => {
                self.replace_broken_producer();
            }
            Err(error) => {
                let lane = self.keys.entry(key.to_owned()).or_default();
                lane.waiting.push_front(event);
                self.ready.push_back(key.to_owned());
                self.back_off(&error);
            }
        }
    }

    /// Holds back the key of an event that Kafka does not take: nothing of it is kept here, the store has it, and the sweep
    /// offers it again. Returns false when it is to be treated as trouble of Kafka's.
    fn refuse(&mut self, event: &PendingEvent, error: &KafkaError) -> bool {
        let key = &event.key;
        match self.refusals.hold(key, Instant::now()) {
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
        let waiting = self.keys.remove(key).map_or(0, |lane| lane.waiting.len());
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

    fn back_off(&mut self, error: &KafkaError) {
        let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
        if self.paused_until.is_none() {
            if !full {
                tracing::warn!(%error, topic = self.topic, held = self.held, pause = ?self.pause, "Kafka did not take an event; trying again");
            }
            self.paused_until = Some(Instant::now() + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        if !full {
            let trouble = error.to_string();
            self.status
                .send_modify(|status| status.trouble = Some(trouble));
        }
        self.replace_broken_producer();
    }

    fn replace_broken_producer(&mut self) {
        // A producer that had a fatal error (KIP-360) takes nothing any more: only a new one does.
        if let Some((code, reason)) = self.producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the producer cannot go on; making a new one");
            match producer(&self.kafka) {
                Ok(fresh) => self.producer = fresh,
                Err(error) => tracing::error!(%error, "no new producer"),
            }
        }
    }

    fn sweep(
        &self,
        settings: &RelaySettings,
        everything: bool,
        after: Option<String>,
    ) -> BoxFuture<'static, Swept> {
        let outbox = Arc::clone(&self.outbox);
        let orphaned = Duration::from_millis(if everything { 0 } else { settings.orphan_ms });
        let before: DateTime<Utc> =
            Utc::now() - TimeDelta::from_std(orphaned).unwrap_or_else(|_| TimeDelta::zero());
        async move {
            let backlog = outbox.backlog().await;
            let events = outbox.pending(before, after.as_deref(), SWEEP_PAGE).await;
            Swept { backlog, events }
        }
        .boxed()
    }

    /// Holds what a sweep found. Returns where the next page begins, if there is one.
    fn take_sweep(&mut self, swept: Swept, first: &mut bool) -> Option<String> {
        let trouble = self.status.borrow().trouble.clone();
        self.refusals.tidy(Instant::now());
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
        let full = events.len() >= SWEEP_PAGE;
        let next = events.last().map(|event| event.key.clone());
        if !events.is_empty() && *first {
            tracing::info!(
                events = events.len(),
                topic = self.topic,
                "publishing what was left pending"
            );
        }
        self.hold(events);
        if full {
            next
        } else {
            *first = false;
            None
        }
    }

    fn tell(&self, backlog: Option<Backlog>, trouble: Option<String>) {
        self.status.send_modify(|status| {
            status.backlog = backlog;
            status.trouble = trouble;
        });
        let age = self.status.borrow().oldest_age();
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

/// Sends an event's companions, each when the one before it is acknowledged, and then the event.
async fn send_one_by_one(
    producer: &FutureProducer,
    topic: &str,
    event: &PendingEvent,
) -> Result<(), KafkaError> {
    for companion in &event.companions {
        send_companion(producer, companion).await?;
    }
    send_event(producer, topic, event).await
}

/// Sends an event with its companions, which saves a way to Kafka and back. It counts as published when all are acknowledged;
/// readers wait for a companion that is late.
async fn send_together(
    producer: &FutureProducer,
    topic: &str,
    event: &PendingEvent,
) -> Result<(), KafkaError> {
    let companions = event
        .companions
        .iter()
        .map(|companion| send_companion(producer, companion));
    // Polled in this order at first, and so queued in it.
    let (companions, event) =
        futures::join!(join_all(companions), send_event(producer, topic, event));
    companions.into_iter().collect::<Result<(), _>>()?;
    event
}

async fn send_companion(
    producer: &FutureProducer,
    companion: &Companion,
) -> Result<(), KafkaError> {
    let record = FutureRecord::<str, str>::to(&companion.topic).key(&companion.key);
    let record = match &companion.payload {
        Some(payload) => record.payload(payload),
        None => record,
    };
    send(producer, record).await
}

async fn send_event(
    producer: &FutureProducer,
    topic: &str,
    event: &PendingEvent,
) -> Result<(), KafkaError> {
    let record = FutureRecord::<str, str>::to(topic)
        .key(&event.key)
        .payload(&event.event.data)
        .headers(cloudevents::headers(&event.event));
    send(producer, record).await
}

async fn send(
    producer: &FutureProducer,
    record: FutureRecord<'_, str, str>,
) -> Result<(), KafkaError> {
    producer
        .send(record, Timeout::After(QUEUE_WAIT))
        .await
        .map(drop)
        .map_err(|(error, _)| error)
}

#[allow(clippy::cast_precision_loss)] // a gauge of 2^53 events is exact enough
fn as_gauge(count: u64) -> f64 {
    count as f64
}

struct Swept {
    backlog: Result<Backlog, StoreError>,
    events: Result<Vec<PendingEvent>, StoreError>,
}

/// Waits for the future if there is one, for ever if there is none.
async fn maybe<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
