//! The relay: publishes pending events in order of revision per key, then clears them from the store.
//!
//! **Order.** An event is sent only after the one before it of the same key is acknowledged. An offer contains all
//! pending events of its key. So everything before a published event of a key has been published before, also when
//! several instances publish the same backlog. The log may repeat events, but an event never appears for the first time
//! before an older one of its key. The next event also waits for the companions of the one before.
//!
//! **Loss.** An offer in memory is only a hint that saves a read. The event stays in the store after a dropped hint, a
//! crash, a failed clear, or a clear that a failover of the store undid. The sweep finds it there. If the event is
//! known to be published, it is only cleared again. If it merely has the revision of a published one (its key was
//! removed and created again), it is published.
//!
//! **Clocks.** The time at which an event was recorded decides how long it is left to its own instance. The clock may
//! have been wrong. The first sweep, and every tenth after it, also finds events that were recorded in the future.
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

/// Bytes of a message beside the event's body: key, headers, framing. All of them are bounded.
const ENVELOPE: usize = 1_024;
/// Most bytes of an event's body if the log takes records of 1,000,000 bytes, which is Kafka's default.
pub const LARGEST_EVENT: usize = 1_000_000 - ENVELOPE;
/// The time from a change to Kafka's acknowledgement.
const PUBLISHED: &str = "change_published_seconds";
/// Hints that may wait. More are dropped, and the sweep finds their events.
const HINTS: usize = 8_192;
/// Events held in memory. A sweep stops there and continues later.
const HELD: usize = 20_000;
/// The pauses after the log did not take a record.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long published events wait to be cleared, so that many share one write. Clearing is not urgent, and one write
/// for each event would slow the commands down.
const CLEAR_PAUSE: Duration = Duration::from_millis(50);
/// This many published events are cleared without waiting.
const CLEAR_AT_ONCE: usize = 500;
/// How long to wait after a failed clear.
const CLEAR_AGAIN: Duration = Duration::from_millis(500);
/// How long the relay goes on publishing when the service stops. The rest waits in the store.
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
    // Rates count from the first sample of a series. Starting at 0 makes the first increment visible.
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
    /// Events that were made before this are left out of the measurement: they waited for a relay to start.
    started: DateTime<Utc>,
    to_clear: HashMap<String, i64>,
    paused_until: Option<Instant>,
    pauses: Pauses,
    refusals: Refusals,
    /// Whether Kafka took the last companions. If not, an event is not sent together with its data key, because Kafka
    /// may refuse the key.
    companions_are_taken: bool,
    /// Sweeps begun so far.
    sweeps: u32,
    /// Whether the present sweep also looks for events that were recorded in the future.
    looks_ahead: bool,
    status: watch::Sender<RelayStatus>,
    clock: Clock,
}

/// The outcome of a clear. A failure returns what was not cleared.
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

    /// Waits until the topics exist. In the meantime it reads the backlog, so that the readiness check is correct.
    async fn await_topics(&mut self, stop: &tokio_util::sync::CancellationToken) -> bool {
        let (log, clock) = (Arc::clone(&self.log), self.clock.clone());
        let mut look_at = clock.instant();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return false,
                ready = log.ready() => {
                    self.status.send_modify(|status| status.failure = None);
                    return ready;
                }
                () = clock.sleep_until(look_at) => {
                    look_at = clock.instant() + Duration::from_secs(1);
                    let backlog = self.outbox.backlog().await.ok();
                    let failure = self.log.failure();
                    self.set_status(backlog, failure);
                }
            }
        }
    }
}

/// Waits for the future if there is one. Otherwise never returns.
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
