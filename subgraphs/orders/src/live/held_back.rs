//! Changes that a subscriber has not been sent yet. A change is held back while its data key is missing, while the
//! audit trail has not said whether it is a repetition, while its predecessor has not been read, and behind another
//! held back change of the same order. Each order waits on its own.
//!
//! A change can be read before its predecessor when partitions were added: the changes of an order are then in two
//! partitions, which are not read in step.

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

/// The maximum number of changes that are held back for one subscriber. A cursor can name this many.
pub(super) const HELD_AT_MOST: usize = 1_000;
/// How long a change waits for its predecessor. After that it is sent anyway: late is better than never.
pub(super) const PREDECESSOR_WAIT: Duration = Duration::from_secs(10);
/// How often it is checked whether the topic of keys has shown a missing key.
const LOOK: Duration = Duration::from_millis(200);
/// How often all sources of keys are asked, because the store may have learned of a key.
const ASK: Duration = Duration::from_secs(5);

/// A change that was read.
pub(super) struct Told {
    /// The position of the change.
    pub(super) position: Position,
    /// The event. It is sealed if its data key is missing.
    pub(super) event: OrderChangeEvent,
    /// When it was published, if that is known.
    pub(super) published_at: Option<DateTime<Utc>>,
    /// The lookup in the audit trail, if it decides whether the change is sent.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// The same change as the feed delivered it to its listeners, if it did. Then its rendering is shared by all of
    /// them.
    pub(super) heard: Option<Arc<Seen>>,
}

/// Changes that no longer need to be held back.
#[derive(Default)]
pub(super) struct Released {
    /// Changes to send, opened. The changes of each order are in order.
    pub(super) told: Vec<Told>,
    /// Positions that the audit trail knows as repetitions.
    pub(super) repeated: Vec<Position>,
}

/// The held back changes of all orders, ordered by revision for each order. A revision may occur twice until it is
/// known which one is the first.
#[derive(Default)]
pub(super) struct HeldBack {
    changes: BTreeMap<(String, i64, Position), Change>,
    /// When to check again.
    look: Option<Instant>,
    /// When to ask all sources of keys again.
    ask: Option<Instant>,
}

struct Change {
    position: Position,
    event: OrderChangeEvent,
    published_at: Option<DateTime<Utc>>,
    /// The lookup in the audit trail, while its answer is needed.
    lookup: Option<Arc<Lookup>>,
    heard: Option<Arc<Seen>>,
    /// Until when the change waits for its predecessor, if that has not been read.
    predecessor_until: Option<Instant>,
}

impl Change {
    /// Whether the audit trail has answered the lookup.
    fn is_decided(&self) -> bool {
        let answer = self.lookup.as_ref().map(|lookup| lookup.answer());
        matches!(answer, Some(Some(_)))
    }
}

impl HeldBack {
    /// Whether a change of this order is held back. Later changes of the order must wait behind it.
    pub(super) fn holds(&self, order_id: &str) -> bool {
        self.of_order(order_id, i64::MIN).next().is_some()
    }

    /// The held back revisions of an order, from a revision on.
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

    /// The number of held back changes.
    pub(super) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether a held back change waits for the audit trail.
    pub(super) fn has_undecided(&self) -> bool {
        self.changes.values().any(|change| change.lookup.is_some())
    }

    /// Holds a change back. `is_early` if its predecessor has not been read.
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

    /// When to check again whether something may be sent. `None` while nothing is held back.
    pub(super) fn look(&self) -> Option<Instant> {
        self.look.filter(|_| !self.changes.is_empty())
    }

    /// Whether it is time to ask for keys and to release changes. `shows_any` says whether the topic of keys has shown
    /// a key or an erasure of any of these customers meanwhile.
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

    /// Whether the predecessor of an early change is held back, too, by now.
    fn follows_held(&self) -> bool {
        self.changes.iter().any(|((id, revision, _), change)| {
            change.predecessor_until.is_some()
                && self.of_order(id, revision - 1).next() == Some(revision - 1)
        })
    }

    /// The customers whose keys are missing.
    pub(super) fn subjects(&self) -> HashSet<String> {
        let sealed = self.changes.values().map(|change| &change.event);
        sealed
            .filter(|event| event.sealed.is_some())
            .map(|event| event.customer_id.clone())
            .collect()
    }

    /// Takes out the changes that may be sent with these keys, and those that the audit trail knows as repetitions.
    /// `is_news` says whether the change at a position has not been sent yet.
    pub(super) fn release(
        &mut self,
        keys: &Keys,
        is_news: impl Fn(Position) -> bool,
        now: Instant,
    ) -> Released {
        let mut released = Released::default();
        let mut kept = BTreeMap::new();
        // The order of the previous change in this loop, and the revision of that change if it is sent.
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
