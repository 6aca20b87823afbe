//! Changes that a subscriber was not told yet: those whose data key is not there, those of which the audit trail has not said whether
//! they were in the log before, those that were read before the change that they follow, and what comes behind any of the same order. Each order waits by itself.
//!
//! A change comes before the one that it follows when partitions were added: an order's changes are then in two of them, which are
//! not read in step.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use tandem_event_path::data_keys::Keys;
use tandem_model::message::Position;
use tandem_runtime::clock::Instant;

use super::{audit_lookup::Lookup, seen::Seen};
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
    /// What the audit trail says of it, where that decides whether it is told.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// The same as all its listeners have heard it, if they have: what is written of it is written once for all of them.
    pub(super) heard: Option<Arc<Seen>>,
}

/// What need not be held back any more.
#[derive(Default)]
pub(super) struct Released {
    /// To be told, opened, in order for each order.
    pub(super) told: Vec<Told>,
    /// Known by the audit trail to have been in the log before.
    pub(super) repeated: Vec<Position>,
}

/// What is held back of all orders, in order of revision for each; a revision may be there twice until it is known which is the first.
#[derive(Default)]
pub(super) struct HeldBack {
    changes: BTreeMap<(String, i64, Position), Change>,
    /// When to look next.
    look: Option<Instant>,
    /// When everybody is asked next.
    ask: Option<Instant>,
}

struct Change {
    position: Position,
    event: OrderChangeEvent,
    published_at: Option<DateTime<Utc>>,
    /// What the audit trail is to say of it, if that is waited for.
    lookup: Option<Arc<Lookup>>,
    heard: Option<Arc<Seen>>,
    /// Until when the change before it is waited for, if that has not been read.
    predecessor_until: Option<Instant>,
}

impl Change {
    /// Whether the audit trail has said what was waited for.
    fn is_decided(&self) -> bool {
        let answer = self.lookup.as_ref().map(|lookup| lookup.answer());
        matches!(answer, Some(Some(_)))
    }
}

impl HeldBack {
    /// Whether a change of this order is held back: what follows it is, too.
    pub(super) fn holds(&self, order_id: &str) -> bool {
        self.of_order(order_id, i64::MIN).next().is_some()
    }

    /// What is held back of an order from a revision on.
    fn of_order(&self, order_id: &str, revision: i64) -> impl Iterator<Item = i64> {
        let least = Position {
            partition: i32::MIN,
            offset: i64::MIN,
        };
        let first = (order_id.to_owned(), revision, least);
        let changes = self.changes.range(first..).map(|(place, _)| place);
        changes
            .take_while(move |(id, ..)| id == order_id)
            .map(|(_, revision, _)| *revision)
    }

    /// How many changes are held back.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether the audit trail is to say something of what is held back.
    pub(super) fn has_undecided(&self) -> bool {
        self.changes.values().any(|change| change.lookup.is_some())
    }

    /// Holds a change back; `is_early` if the one that it follows has not been read.
    pub(super) fn hold(&mut self, told: Told, is_early: bool, now: Instant) {
        let Told {
            position,
            event,
            published_at,
            lookup,
            heard,
        } = told;
        let place = (event.id.clone(), event.revision, position);
        let change = Change {
            position,
            event,
            published_at,
            lookup,
            heard,
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
        let is_decided = self.changes.values().any(Change::is_decided);
        if !is_decided && self.look().is_none_or(|look| now < look) {
            return false;
        }
        self.look = Some(now + LOOK);
        let is_due = self.ask.is_none_or(|ask| ask <= now);
        let may_be_told = |change: &Change| {
            change.lookup.is_none()
                && change.event.sealed.is_none()
                && change.predecessor_until.is_none_or(|it| it <= now)
        };
        let is_told = is_due
            || is_decided
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
        self.changes.iter().any(|((id, revision, _), change)| {
            change.predecessor_until.is_some()
                && self.of_order(id, revision - 1).next() == Some(revision - 1)
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

    /// Takes out what may be told with these keys, and what the audit trail knows to be repeated. `is_news` says whether the subscriber has
    /// not been told what is at a position.
    pub(super) fn release(
        &mut self,
        keys: &Keys,
        is_news: impl Fn(Position) -> bool,
        now: Instant,
    ) -> Released {
        let mut released = Released::default();
        let mut kept = BTreeMap::new();
        // The order whose last change was looked at, and its revision if it was told.
        let mut before: Option<(String, Option<i64>)> = None;
        for (place, mut change) in std::mem::take(&mut self.changes) {
            let (id, revision) = (&place.0, place.1);
            if let Some(answer) = change.lookup.as_ref().and_then(|lookup| lookup.answer()) {
                if !answer.is_first {
                    released.repeated.push(change.position);
                    continue;
                }
                change.lookup = None;
                if answer.predecessor.is_some_and(&is_news) {
                    change.predecessor_until = Some(now + PREDECESSOR_WAIT);
                }
            }
            let last = before.take().filter(|(order, _)| order == id);
            let is_behind = matches!(last, Some((_, None)));
            let follows_told = matches!(last, Some((_, Some(told))) if told == revision - 1);
            let may_be_told = change.lookup.is_none()
                && !is_behind
                && (follows_told || change.predecessor_until.is_none_or(|until| until <= now));
            let opened = may_be_told
                .then(|| erasure::open_one(change.event.clone(), keys).ok())
                .flatten();
            before = Some((id.clone(), opened.as_ref().map(|_| revision)));
            match opened {
                Some(event) => released.told.push(Told {
                    position: change.position,
                    event,
                    published_at: change.published_at,
                    lookup: None,
                    heard: change.heard,
                }),
                None => {
                    kept.insert(place, change);
                }
            }
        }
        self.changes = kept;
        released
    }
}
