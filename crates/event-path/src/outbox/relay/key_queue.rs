//! The queue of one key: its pending events in order of revision, each once.

use std::collections::VecDeque;

use super::Relay;
use crate::outbox::PendingEvent;

/// The events of one key that the relay holds.
#[derive(Default)]
pub(super) struct KeyQueue {
    pub(super) waiting: VecDeque<PendingEvent>,
    pub(super) in_flight: Option<i64>,
}

impl Relay {
    /// Queues the events that are neither published nor queued yet.
    pub(super) fn hold(&mut self, pending: Vec<PendingEvent>) {
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
}
