//! Deduplication: of the positions of an event in the log, only the one where it was first seen counts.
//!
//! A relay that crashed publishes events again, so the log may hold (order, revision) twice. The revisions of an order
//! first appear in the log in their order, and a repetition never runs ahead of them. So a reader that has seen the
//! first occurrence of a revision can judge everything after it: the next revision is new, and a revision that it has
//! seen is a repetition. A reader that has not seen it asks the audit trail ([`super::audit_lookup`]). While the trail
//! is behind, the event and the later events of the same order wait for its answer.
//!
//! When partitions are added, the changes of an order are in two partitions and may be read out of order. A revision
//! that skips some tells nothing about the skipped ones, and is marked as early. For an order that is not remembered,
//! only the first revision is sure to skip none.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use tandem_event_path::fault::{self, Fault};

use super::audit_lookup::Lookup;
use crate::domain::OrderChangeEvent;

/// The number of orders that each of the two generations remembers.
const REMEMBERED: usize = 50_000;
/// The tolerated clock skew between instances.
pub(super) const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(5);
/// The first revision of every order.
const FIRST_REVISION: i64 = 1;
/// The maximum number of orders with open lookups that are remembered. If an order is forgotten, the trail is asked
/// again.
const UNDECIDED: usize = 10_000;

/// What memory knows of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Occurrence {
    /// This is its first occurrence.
    New,
    /// It was seen before.
    Repeated,
    /// Memory does not know. The audit trail must be asked.
    Unknown,
}

/// The last revisions of an order that were seen, without a gap.
#[derive(Clone, Copy, Debug)]
struct Revisions {
    oldest: i64,
    newest: i64,
    /// When the newest one was made.
    made: DateTime<Utc>,
}

/// An event about which the audit trail is asked.
#[derive(Debug)]
struct Undecided {
    revision: i64,
    made: DateTime<Utc>,
    lookup: Arc<Lookup>,
}

/// The newest seen revisions of each order, in bounded memory.
#[derive(Debug)]
pub(super) struct SeenRevisions {
    young: HashMap<String, Revisions>,
    old: HashMap<String, Revisions>,
    /// Orders without a known first occurrence, each with the events that were read of it, in that order.
    undecided: HashMap<String, Vec<Undecided>>,
    capacity: usize,
    /// An event that was made later than this cannot have been seen and forgotten.
    certain_after: DateTime<Utc>,
}

impl SeenRevisions {
    /// The memory of a reader that reads everything from now on. An event that is made from now on cannot have been in
    /// the log before.
    pub(super) fn from(now: DateTime<Utc>) -> Self {
        Self::with_capacity(REMEMBERED, now + CLOCK_SKEW)
    }

    /// The memory of a reader that reads the past.
    pub(super) fn of_the_past() -> Self {
        Self::with_capacity(REMEMBERED, DateTime::<Utc>::MAX_UTC)
    }

    pub(super) fn with_capacity(capacity: usize, certain_after: DateTime<Utc>) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            undecided: HashMap::new(),
            capacity,
            certain_after,
        }
    }

    fn known(&self, order_id: &str) -> Option<&Revisions> {
        let young = self.young.get(order_id);
        young.or_else(|| self.old.get(order_id))
    }

    pub(super) fn classify(&self, event: &OrderChangeEvent) -> Occurrence {
        let is_first = event.revision <= FIRST_REVISION;
        match self.known(&event.id) {
            _ if fault::is_on(Fault::RepeatsNotKnown) => Occurrence::New,
            Some(known) if event.revision > known.newest => Occurrence::New,
            Some(known) if event.revision >= known.oldest => Occurrence::Repeated,
            // The event is older than everything remembered: it was forgotten, or read after its successors.
            Some(_) => Occurrence::Unknown,
            None if is_first && event.changed_at.as_datetime() > self.certain_after => {
                Occurrence::New
            }
            // The predecessor may not have been read. The trail knows its position.
            None => Occurrence::Unknown,
        }
    }

    /// Whether this event skips revisions after the newest seen one.
    pub(super) fn leaves_out(&self, event: &OrderChangeEvent) -> bool {
        self.known(&event.id)
            .is_some_and(|known| event.revision > known.newest.saturating_add(1))
    }

    /// Records that the audit trail is asked about an event. Nothing is concluded about later events of the order until
    /// the trail has answered all lookups of the order.
    pub(super) fn asked(&mut self, event: &OrderChangeEvent, lookup: &Arc<Lookup>) {
        if self.known(&event.id).is_some() {
            // A newer event is new anyway, and for an older one the trail is asked each time.
            return;
        }
        if self.undecided.len() >= UNDECIDED && !self.undecided.contains_key(&event.id) {
            self.undecided.clear();
        }
        let undecided = self.undecided.entry(event.id.clone()).or_default();
        undecided.push(Undecided {
            revision: event.revision,
            made: event.changed_at.as_datetime(),
            lookup: Arc::clone(lookup),
        });
    }

    /// Records that an event of this order was skipped. The earlier events then tell nothing about the later ones.
    pub(super) fn passed(&mut self, order_id: &str) {
        self.undecided.remove(order_id);
    }

    /// Applies the answers of the audit trail for an order, when all of them are there.
    pub(super) fn settle(&mut self, order_id: &str) {
        let is_open = |one: &Undecided| one.lookup.answer().is_none();
        let undecided = self.undecided.get(order_id);
        if undecided.is_none_or(|undecided| undecided.iter().any(is_open)) {
            return;
        }
        for one in self.undecided.remove(order_id).unwrap_or_default() {
            if one.lookup.answer().is_some_and(|answer| answer.is_first) {
                self.note(order_id, one.revision, one.made);
            }
        }
    }

    /// Records a first occurrence.
    pub(super) fn seen(&mut self, event: &OrderChangeEvent) {
        self.note(&event.id, event.revision, event.changed_at.as_datetime());
    }

    fn note(&mut self, order_id: &str, revision: i64, made: DateTime<Utc>) {
        let alone = Revisions {
            oldest: revision,
            newest: revision,
            made,
        };
        let known = match self.known(order_id).copied() {
            Some(known) if revision == known.newest.saturating_add(1) => Revisions {
                oldest: known.oldest,
                ..alone
            },
            Some(known) if revision <= known.newest => Revisions {
                oldest: if revision == known.oldest - 1 {
                    revision
                } else {
                    known.oldest
                },
                ..known
            },
            _ => alone,
        };
        if self.young.len() >= self.capacity {
            let forgotten = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            let newest = forgotten.into_values().map(|known| known.made).max();
            self.certain_after = self.certain_after.max(newest.unwrap_or_default());
        }
        self.young.insert(order_id.to_owned(), known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::tests::{advanced, order_of_age};

    #[test]
    fn what_memory_forgot_is_asked_for_and_not_taken_for_new() {
        let began = Utc::now() - TimeDelta::hours(1);
        let mut memory = SeenRevisions::with_capacity(2, began);
        let orders: Vec<OrderChangeEvent> = (0..6)
            .map(|n| OrderChangeEvent::of(&order_of_age("1", TimeDelta::seconds(-n)), "test"))
            .collect();
        for event in &orders {
            assert_eq!(memory.classify(event), Occurrence::New);
            memory.seen(event);
            assert_eq!(memory.classify(event), Occurrence::Repeated);
        }
        assert_eq!(memory.classify(&orders[5]), Occurrence::Repeated);
        assert_eq!(memory.classify(&orders[0]), Occurrence::Unknown);
    }

    #[test]
    fn a_later_revision_of_an_order_that_nothing_is_known_of_is_asked_for() {
        let mut memory = SeenRevisions::from(Utc::now() - TimeDelta::hours(1));
        let placed = order_of_age("1", TimeDelta::seconds(1));
        let confirmed = advanced(&placed);
        let [placed, confirmed] =
            [placed, confirmed].map(|order| OrderChangeEvent::of(&order, "test"));
        // The first revision may be in another partition and not have been read.
        assert_eq!(memory.classify(&confirmed), Occurrence::Unknown);
        memory.seen(&placed);
        assert_eq!(memory.classify(&confirmed), Occurrence::New);
        assert!(!memory.leaves_out(&confirmed));
    }
}
