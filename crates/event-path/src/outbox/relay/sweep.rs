//! The sweep: looks in the store for pending events that nobody offered to the relay, and measures the backlog.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use futures::{FutureExt, future::BoxFuture};

use super::{Relay, RelaySettings};
use crate::{
    outbox::{Backlog, PendingEvent},
    store::StoreError,
};

/// Events read from the store at once.
const SWEEP_PAGE: usize = 1_000;
/// Every tenth sweep also looks for events that were recorded in the future.
pub(super) const LOOK_AHEAD: u32 = 10;
/// How far it looks into the future, in days. No clock is set further ahead.
const AHEAD_DAYS: i64 = 36_500;

/// The longest rest that `orphan_ms` may cause. The reported backlog is at most this old, unless `sweep_ms` is longer.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// The pause after a sweep that found nothing pending. An event that was stored since belongs to the instance that
/// stored it, until it counts as orphaned. An earlier sweep would find nothing to do. A later one would delay the
/// events of an instance that ended, because nobody else reports them.
pub(super) fn rest(settings: &RelaySettings) -> Duration {
    let left_behind = Duration::from_millis(settings.orphan_ms);
    Duration::from_millis(settings.sweep_ms).max(left_behind.min(LONGEST_REST))
}

pub(super) struct Swept {
    backlog: Result<Backlog, StoreError>,
    events: Result<Vec<PendingEvent>, StoreError>,
    /// The key behind which the next page begins, if there is one.
    next: Option<String>,
}

impl Relay {
    pub(super) fn sweep(
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
        // A sweep that looks ahead also finds events that were recorded just now. Their own instance publishes them.
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

    /// Whether nothing is pending, by the last sweep and by what the relay holds.
    pub(super) fn is_at_rest(&self) -> bool {
        let is_empty = |backlog: Backlog| backlog.events == 0;
        self.held == 0
            && self.to_clear.is_empty()
            && self.paused_until.is_none()
            && self.status.borrow().backlog.is_some_and(is_empty)
    }

    /// Queues what a sweep found. Returns where the next page begins, if there is one.
    pub(super) fn take_sweep(&mut self, swept: Swept, first: &mut bool) -> Option<String> {
        let failure = self.status.borrow().failure.clone();
        self.refusals.tidy(self.clock.instant());
        self.count_refused();
        match swept.backlog {
            Ok(backlog) => self.set_status(Some(backlog), failure),
            Err(error) => {
                tracing::warn!(%error, "pending events cannot be counted");
                self.set_status(None, failure);
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

    /// Judges the events of one key that the sweep found, which are all pending events of that key. Published events
    /// that are still pending, or pending again, are cleared once more.
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
            // It is unknown whether these events were published. The log may repeat events, but must not miss one.
            self.published.forget(key);
        }
    }

    pub(super) fn set_status(&self, backlog: Option<Backlog>, failure: Option<String>) {
        self.status.send_modify(|status| {
            status.backlog = backlog;
            status.failure = failure;
        });
        let age = self.status.borrow().oldest_age(self.clock.now());
        metrics::gauge!("outbox_pending_events", "topic" => self.topic)
            .set(as_gauge(backlog.unwrap_or_default().events));
        metrics::gauge!("outbox_oldest_pending_seconds", "topic" => self.topic)
            .set(age.as_secs_f64());
    }
}

#[allow(clippy::cast_precision_loss)] // a gauge of 2^53 events is exact enough
fn as_gauge(count: u64) -> f64 {
    count as f64
}
