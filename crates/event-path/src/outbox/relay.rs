//! The relay: publishes pending events in order of revision per key, then clears them from the store.
//!
//! **Order.** An event is sent only when the one before it of the same key is acknowledged, and an offer contains
//! everything that is pending of its key. So everything before a published event of a key has been published before,
//! also when several instances publish the same backlog. The log may repeat events; it never shows one before an older
//! one of its key for the first time. The next event also waits for the companions of the one before.
//!
//! **Loss.** An offer in memory is only a hint that saves a read. After a dropped hint, a crash, a failed clear, or a
//! clear that a failover of the store undid, the event is still in the store, where the sweep finds it. An event that
//! is known to be published is only cleared again. One that merely has the revision of a published one (its key was
//! removed and made again) is published.
//!
//! **Clocks.** The time at which an event was recorded decides how long it is left to its own instance. That clock may
//! have been wrong: what was recorded in the future is found by the first sweep, and by every tenth.
//!
//! **Refusals.** While Kafka is down the whole relay pauses. An event that Kafka refuses for good holds back only its
//! own key: see `refusals`.

mod acknowledgement;
mod handle;
mod key_queue;
mod published;
mod sending;
mod settings;
mod sweep;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, watch};

use super::{Outbox, PendingEvent, linger::AdaptiveLinger, refusals::Refusals};
use crate::{
    fault::{self, Fault},
    log::{Log, LogError, Publisher},
    store::StoreError,
};
use tandem_runtime::{
    backoff::{Backoff, Pauses},
    clock::{Clock, Instant},
    shutdown::Shutdown,
};

pub use handle::{Lateness, RelayHandle, RelayStatus};
use key_queue::KeyQueue;
use published::Remembered;
use sending::Delivery;
pub use settings::RelaySettings;
use sweep::{LOOK_AHEAD, Swept, rest};

/// What a message has beside the event's body, in bytes: key, headers, framing. All of it is bounded.
const ENVELOPE: usize = 1_024;
/// Most bytes of an event's body where the log takes records of 1,000,000 bytes, as Kafka does unless it is told otherwise.
pub const LARGEST_EVENT: usize = 1_000_000 - ENVELOPE;
/// How long it took from a change to Kafka's acknowledgement.
const PUBLISHED: &str = "change_published_seconds";
/// Hints that may wait to be looked at; more are dropped and left to the sweep.
const HINTS: usize = 8_192;
/// Events held in memory; a sweep stops there and goes on later.
const HELD: usize = 20_000;
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
    // A series that begins with the first of its kind is no increase.
    metrics::counter!("outbox_hints_dropped_total").increment(0);
    metrics::counter!("outbox_cleared_again_total", "topic" => topic).increment(0);
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
        published_after: metrics::histogram!(PUBLISHED, "topic" => topic),
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
        let mut swept_at = sweep_at;
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
                fault::abort_if_ordered(fault::Instant::BeforeClear, self.topic);
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
                swept_at = self.clock.instant();
                sweep_at = swept_at + sweep_every;
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
                    } else if sweep_from.is_none() && self.is_at_rest() {
                        sweep_at = swept_at + rest(&settings);
                    }
                }
                count = hints.recv_many(&mut offered, 1_024), if self.held < HELD && offered.len() < HINTS && farewell.is_none() => {
                    if count == 0 {
                        farewell.get_or_insert(self.clock.instant() + FAREWELL);
                    }
                    // The reported backlog must not be stale while events are published.
                    sweep_at = sweep_at.min(self.clock.instant() + sweep_every);
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
                    self.set_status(backlog, trouble);
                }
            }
        }
    }
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
