//! What happens to an event after Kafka's answer: it is published, it is retried after a pause, or it holds back its
//! key.

use super::{PUBLISHED, Relay};
use crate::{
    fault::{self, Fault},
    log::PublishError,
    outbox::{PendingEvent, refusals::Held},
};
use tandem_model::values::elapsed;
use tandem_runtime::{exemplars, span, trace_context::TraceContext};

impl Relay {
    /// Handles Kafka's answer to one event.
    pub(super) fn settle(
        &mut self,
        key: &str,
        event: PendingEvent,
        result: Result<(), PublishError>,
    ) {
        let Some(queue) = self.keys.get_mut(key) else {
            return;
        };
        queue.in_flight = None;
        let result = match result {
            Err(PublishError::Unavailable(_)) if fault::is_on(Fault::FailureTakenForSuccess) => {
                Ok(())
            }
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
                self.measure_published(&event);
                self.pauses.reset();
                if self.status.borrow().failure.is_some() {
                    tracing::info!(topic = self.topic, "events are published again");
                    self.status.send_modify(|status| status.failure = None);
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

    /// Records the time from the change to Kafka's acknowledgement.
    fn measure_published(&self, event: &PendingEvent) {
        let made = event.event.time;
        if made >= self.started {
            let now = self.clock.now();
            let seconds = elapsed(made, now).as_secs_f64();
            self.published_after.record(seconds);
            if span::is_recording()
                && let Some(trace) = &event.event.traceparent
                && let Ok(trace) = trace.parse::<TraceContext>()
            {
                exemplars::keep(PUBLISHED, &[("topic", self.topic)], seconds, &trace, now);
            }
        }
    }

    /// Holds back the key of an event that Kafka does not take. The relay drops the key's events from memory. They are
    /// in the store, and the sweep offers them again. Returns false if the caller must treat the refusal as a failure
    /// of Kafka.
    pub(super) fn refuse(&mut self, event: &PendingEvent, error: &PublishError) -> bool {
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

    pub(super) fn count_refused(&self) {
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

    pub(super) fn back_off(&mut self, error: &PublishError) {
        // An error about a late record does not say why it is late. The log knows the reason.
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
            let failure = reason.unwrap_or_else(|| error.to_string());
            self.status
                .send_modify(|status| status.failure = Some(failure));
        }
    }
}
