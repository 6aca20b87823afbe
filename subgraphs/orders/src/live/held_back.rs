//! Changes that a subscriber was not told yet: those whose data key is not there, those that were read before the change that they
//! follow, and what comes behind either of the same order. Each order waits by itself.
//!
//! A change comes before the one that it follows when partitions were added: an order's changes are then in two of them, which are
//! not read in step.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tandem_event_path::data_keys::Keys;
use tandem_model::message::Position;
use tandem_runtime::clock::Instant;

use crate::{domain::OrderChangeEvent, erasure};

/// Changes that one subscriber is held back at most; a cursor names as many.
pub(super) const HELD_AT_MOST: usize = 1_000;
/// How long the change before is waited for: told late is better than not at all.
pub(super) const PREDECESSOR_WAIT: Duration = Duration::from_secs(10);
/// How often it is looked whether the topic of keys has shown one that is waited for.
const LOOK: Duration = Duration::from_millis(200);
/// How often others are asked, too: the store may have learned of it.
const ASK: Duration = Duration::from_secs(5);

/// A change that was read.
pub(super) struct Told {
    /// Where.
    pub(super) position: Position,
    /// What it says; sealed if its data key is not there.
    pub(super) event: OrderChangeEvent,
    /// When it was published, if that is known.
    pub(super) published_at: Option<DateTime<Utc>>,
}

/// What is held back of all orders, in order of revision for each.
#[derive(Debug, Default)]
pub(super) struct HeldBack {
    changes: BTreeMap<(String, i64), Change>,
    /// When to look next.
    look: Option<Instant>,
    /// When everybody is asked next.
    ask: Option<Instant>,
}

#[derive(Debug)]
struct Change {
    position: Position,
    event: OrderChangeEvent,
    published_at: Option<DateTime<Utc>>,
    /// Until when the change before it is waited for, if that has not been read.
    predecessor_until: Option<Instant>,
}

impl HeldBack {
    /// Whether a change of this order is held back: what follows it is, too.
    pub(super) fn holds(&self, order_id: &str) -> bool {
        let first = (order_id.to_owned(), i64::MIN);
        let next = self.changes.range(first..).next();
        next.is_some_and(|((id, _), _)| id == order_id)
    }

    /// How many changes are held back.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Holds a change back; `is_early` if the one that it follows has not been read.
    pub(super) fn hold(&mut self, told: Told, is_early: bool, now: Instant) {
        let Told {
            position,
            event,
            published_at,
        } = told;
        let place = (event.id.clone(), event.revision);
        let change = Change {
            position,
            event,
            published_at,
            predecessor_until: is_early.then_some(now + PREDECESSOR_WAIT),
        };
        self.changes.insert(place, change);
        self.look = Some(now);
        self.ask.get_or_insert(now);
    }

    /// Whether the change at this position is held back.
    pub(super) fn is_at(&self, position: Position) -> bool {
        self.changes
            .values()
            .any(|change| change.position == position)
    }

    /// When to look next whether something may be told; `None` while nothing is held back.
    pub(super) fn look(&self) -> Option<Instant> {
        self.look.filter(|_| !self.changes.is_empty())
    }

    /// Whether those who know of keys are to be asked now: `shows_any` says whether any of these has been heard of meanwhile.
    pub(super) fn looks(
        &mut self,
        now: Instant,
        shows_any: impl FnOnce(&HashSet<String>) -> bool,
    ) -> bool {
        if self.look().is_none_or(|look| now < look) {
            return false;
        }
        self.look = Some(now + LOOK);
        let is_due = self.ask.is_none_or(|ask| ask <= now);
        let may_be_told = |change: &Change| {
            change.event.sealed.is_none() && change.predecessor_until.is_none_or(|it| it <= now)
        };
        let is_told = is_due
            || self.follows_held()
            || self.changes.values().any(may_be_told)
            || shows_any(&self.subjects());
        if is_told {
            self.ask = Some(now + ASK);
        }
        is_told
    }

    /// Whether a change that was early has the one before it held back, too, by now.
    fn follows_held(&self) -> bool {
        self.changes.iter().any(|((id, revision), change)| {
            change.predecessor_until.is_some()
                && self.changes.contains_key(&(id.clone(), revision - 1))
        })
    }

    /// Those whose keys are waited for.
    pub(super) fn subjects(&self) -> HashSet<String> {
        let sealed = self.changes.values().map(|change| &change.event);
        sealed
            .filter(|event| event.sealed.is_some())
            .map(|event| event.customer_id.clone())
            .collect()
    }

    /// Takes out what may be told with these keys, opened, in order for each order.
    pub(super) fn release(&mut self, keys: &Keys, now: Instant) -> Vec<Told> {
        let mut told = Vec::new();
        let mut kept = BTreeMap::new();
        // The order whose last change was looked at, and its revision if it was told.
        let mut before: Option<(String, Option<i64>)> = None;
        for ((id, revision), change) in std::mem::take(&mut self.changes) {
            let last = before.take().filter(|(order, _)| *order == id);
            let is_behind = matches!(last, Some((_, None)));
            let follows_told = matches!(last, Some((_, Some(told))) if told == revision - 1);
            let may_be_told = !is_behind
                && (follows_told || change.predecessor_until.is_none_or(|until| until <= now));
            let opened = may_be_told
                .then(|| erasure::open_one(change.event.clone(), keys).ok())
                .flatten();
            before = Some((id.clone(), opened.as_ref().map(|_| revision)));
            match opened {
                Some(event) => told.push(Told {
                    position: change.position,
                    event,
                    published_at: change.published_at,
                }),
                None => {
                    kept.insert((id, revision), change);
                }
            }
        }
        self.changes = kept;
        told
    }
}
