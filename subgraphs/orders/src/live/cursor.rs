//! The cursors of subscribers. They are opaque to clients and hold positions in the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use tandem_event_path::fault::{self, Fault};
use tandem_event_path::log::Offsets;
use tandem_model::message::Position;
use tandem_service::graphql::Cursor;

use super::{LiveError, held_back::HELD_AT_MOST, log::Log, short_name::in_short};

/// An upper bound for the partitions of a topic. A cursor with more partitions is not valid.
const MOST_PARTITIONS: usize = 10_000;
/// The maximum number of orders that a cursor can name whose snapshot is ahead of the log. If there are more, a
/// subscriber that resumes gets the snapshot again.
pub(super) const MOST_AHEAD: usize = 100;

/// The place of a subscriber of orders in the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// For each partition, the offset of the next message that the subscriber has not seen. Up to ten thousand
    /// subscribers share it.
    pub(super) seen: Arc<Offsets>,
    /// The id of the order after which the next page of the snapshot begins. It is empty for the first page, and `None`
    /// if no page is left.
    pub(super) snapshot: Option<String>,
    /// Revisions of orders that the subscriber has from the snapshot, and whose events may come after `seen`.
    pub(super) ahead: BTreeMap<String, i64>,
    /// Positions below `seen` whose changes have not been sent yet.
    pub(super) held: BTreeSet<Position>,
    /// The short name of the system that owns the log. `None` in cursors of earlier versions, and if the system was not
    /// known.
    pub(super) system: Option<u32>,
    /// The short name of the orders that the subscriber follows. `None` in cursors of earlier versions.
    pub(super) filter: Option<u32>,
}

/// A place in a log that can be encoded as a cursor.
pub(super) trait InLog {
    /// The system that its cursor names, if it names one.
    fn system(&self) -> Option<u32>;

    /// The encoded cursor, which names this system.
    fn written(&self, system: Option<u32>) -> String;

    /// Checks that the place is in this log. If one of the two systems is not known, the place is accepted.
    ///
    /// # Errors
    /// When the place is in the log of another system.
    fn check(&self, log: &dyn Log) -> Result<(), LiveError> {
        match (self.system(), log.system()) {
            (Some(written), Some(ours)) if written != ours => Err(LiveError::BadCursor(
                "comes from another system: subscribe without it".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// The cursor of this place in this log.
    fn encode(&self, log: &dyn Log) -> Arc<str> {
        self.written(log.system().or(self.system())).into()
    }
}

/// The encoded form of a place within a snapshot, shortly after one, or with changes that are held back. A cursor with
/// other fields belongs to another feed, whose positions are in another topic.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WithSnapshot {
    p: Offsets,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    a: BTreeMap<String, i64>,
    /// For each partition, the offsets that are held back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    h: BTreeMap<i32, Vec<i64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    i: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    f: Option<u32>,
}

/// The place of a subscriber of one customer in the feed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CustomerPlace {
    /// For each partition, the offset of the next message that the subscriber has not seen.
    #[serde(rename = "p")]
    pub(super) seen: Offsets,
    /// The newest revision that the subscriber has, or 0.
    #[serde(rename = "r")]
    pub(super) revision: i64,
    /// As in [`Place`].
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    pub(super) system: Option<u32>,
    /// The short name of the customer. `None` in cursors of earlier versions.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(super) customer: Option<u32>,
}

impl InLog for Place {
    fn system(&self) -> Option<u32> {
        self.system
    }

    fn written(&self, system: Option<u32>) -> String {
        if self.is_plain() && system.is_none() && self.filter.is_none() {
            return Cursor(&*self.seen).encode();
        }
        let is_kept = self.ahead.len() <= MOST_AHEAD;
        let mut held: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for Position { partition, offset } in &self.held {
            held.entry(*partition).or_default().push(*offset);
        }
        Cursor(WithSnapshot {
            p: Offsets::clone(&self.seen),
            s: if is_kept {
                self.snapshot.clone()
            } else {
                Some(String::new())
            },
            a: if is_kept {
                self.ahead.clone()
            } else {
                BTreeMap::new()
            },
            h: held,
            i: system,
            f: self.filter,
        })
        .encode()
    }
}

impl Place {
    /// The place of a subscriber with this filter that has not seen anything yet.
    pub(super) fn of(filter: u32) -> Self {
        Self {
            filter: Some(filter),
            ..Self::default()
        }
    }

    /// The same place at these positions in the log.
    pub(super) fn at(self, seen: impl Into<Arc<Offsets>>) -> Self {
        Self {
            seen: seen.into(),
            ..self
        }
    }

    /// Whether the place is only a position in the log.
    fn is_plain(&self) -> bool {
        self.snapshot.is_none() && self.ahead.is_empty() && self.held.is_empty()
    }

    /// Whether the place is only this position in this log. Then all subscribers at this position with the same filter
    /// have the same cursor.
    pub(super) fn is_just(&self, positions: &Arc<Offsets>, log: &dyn Log) -> bool {
        self.is_plain()
            && self.seen == *positions
            && (self.system.is_none() || log.system().is_some())
    }

    /// Whether a message was not read yet, or is held back and was not sent yet.
    pub(super) fn is_news(&self, position: Position) -> bool {
        !is_seen(&self.seen, position) || self.held.contains(&position)
    }

    /// Decodes a cursor of a feed with this filter. A cursor of another filter is refused: after a page of a snapshot,
    /// the next page would lack the orders that the other filter excluded from the earlier pages.
    ///
    /// # Errors
    /// When the text is not a valid cursor, or is the cursor of a feed with another filter.
    pub(super) fn decode_of(text: &str, filter: u32) -> Result<Self, LiveError> {
        let place = Self::decode(text)?;
        if place.filter.is_some_and(|written| written != filter) {
            return Err(LiveError::BadCursor(
                "is of a feed with another `customerId` or `orderId`: subscribe with those that it was given for, or without it"
                    .to_owned(),
            ));
        }
        Ok(Self {
            filter: Some(filter),
            ..place
        })
    }

    fn decode(text: &str) -> Result<Self, LiveError> {
        let plain = Cursor::<Offsets>::decode(text).map(|Cursor(seen)| Self::default().at(seen));
        let place = plain.or_else(|_| {
            Cursor::<WithSnapshot>::decode(text).map(|Cursor(written)| Self {
                seen: written.p.into(),
                snapshot: written.s,
                ahead: written.a,
                held: written.h.into_iter().flat_map(positions).collect(),
                system: written.i,
                filter: written.f,
            })
        });
        place
            .ok()
            .filter(|place| are_offsets(&place.seen) && place.ahead.len() <= MOST_AHEAD)
            .filter(|place| {
                let is_below = |it: &Position| it.offset >= 0 && is_seen(&place.seen, *it);
                place.held.len() <= HELD_AT_MOST && place.held.iter().all(is_below)
            })
            .ok_or_else(not_ours)
    }
}

impl InLog for CustomerPlace {
    fn system(&self) -> Option<u32> {
        self.system
    }

    fn written(&self, system: Option<u32>) -> String {
        Cursor(Self {
            system,
            ..self.clone()
        })
        .encode()
    }
}

impl CustomerPlace {
    /// The place of a subscriber of this customer that has not seen anything yet.
    pub(super) fn of(customer: &str) -> Self {
        Self {
            customer: Some(in_short(customer)),
            ..Self::default()
        }
    }

    /// Decodes a cursor of this customer's feed.
    ///
    /// # Errors
    /// When the text is not a valid cursor, or is the cursor of another customer.
    pub(super) fn decode_of(text: &str, customer: &str) -> Result<Self, LiveError> {
        let place = Self::decode(text)?;
        let ours = Self::of(customer).customer;
        if place.customer.is_some() && place.customer != ours {
            return Err(LiveError::BadCursor(
                "is a cursor of another customer: subscribe without it".to_owned(),
            ));
        }
        Ok(Self {
            customer: ours,
            ..place
        })
    }

    fn decode(text: &str) -> Result<Self, LiveError> {
        Cursor::<Self>::decode(text)
            .ok()
            .map(|Cursor(place)| place)
            .filter(|place| are_offsets(&place.seen) && place.revision >= 0)
            .ok_or_else(not_ours)
    }
}

/// Decodes a text as a cursor of orders and as a cursor of customers, and encodes each again. For tests of which texts
/// are accepted.
#[must_use]
pub fn rewritten(text: &str) -> [Option<String>; 2] {
    [
        Place::decode(text)
            .ok()
            .map(|place| place.written(place.system)),
        CustomerPlace::decode(text)
            .ok()
            .map(|place| place.written(place.system)),
    ]
}

fn positions((partition, offsets): (i32, Vec<i64>)) -> impl Iterator<Item = Position> {
    offsets
        .into_iter()
        .map(move |offset| Position { partition, offset })
}

fn are_offsets(seen: &Offsets) -> bool {
    (1..=MOST_PARTITIONS).contains(&seen.len())
        && seen
            .iter()
            .all(|(partition, offset)| *partition >= 0 && *offset >= 0)
}

fn not_ours() -> LiveError {
    LiveError::BadCursor(
        "is no cursor of this subscription; take one from an item's `cursor`".to_owned(),
    )
}

/// Where to read from. Partitions that the cursor does not know yet are read from the beginning of the log.
pub(super) fn starting_points(
    cursor: &Offsets,
    held: &BTreeSet<Position>,
    ends: &BTreeMap<i32, (i64, i64)>,
) -> Result<Offsets, LiveError> {
    if cursor.keys().any(|partition| !ends.contains_key(partition)) {
        return Err(LiveError::BadCursor(
            "names a partition that the log does not have: it comes from another system".to_owned(),
        ));
    }
    ends.iter()
        .map(|(partition, (first, next))| {
            let from = cursor.get(partition).copied().unwrap_or(*first);
            if from > *next {
                return Err(LiveError::BadCursor(
                    "is ahead of the log: it comes from another system".to_owned(),
                ));
            }
            let of_partition = |it: &&Position| it.partition == *partition;
            let held = held.iter().find(of_partition).map(|it| it.offset);
            if held.unwrap_or(from).min(from) < *first {
                return Err(LiveError::BadCursor(
                    "is older than what the log keeps: subscribe without it".to_owned(),
                ));
            }
            Ok((*partition, from))
        })
        .collect()
}

/// Where to begin reading so that held back changes are read again.
pub(super) fn with_held(seen: &Offsets, held: &BTreeSet<Position>) -> Offsets {
    let mut from = seen.clone();
    for Position { partition, offset } in held {
        let next = from.entry(*partition).or_insert(*offset);
        *next = (*next).min(*offset);
    }
    from
}

/// Moves `seen` back to `to` in each partition where `to` is earlier, or that `seen` does not have.
pub(super) fn step_back(seen: &mut Offsets, to: &Offsets) {
    for (partition, offset) in to {
        let known = seen.entry(*partition).or_insert(*offset);
        *known = (*known).min(*offset);
    }
}

/// Moves `seen` forward to `to` in each partition where `to` is further. If `to` is further everywhere, `seen` shares
/// it.
pub(super) fn advance_shared(seen: &mut Arc<Offsets>, to: &Arc<Offsets>) {
    let is_behind =
        |(partition, offset): (&i32, &i64)| to.get(partition).is_some_and(|it| it >= offset);
    if seen.iter().all(is_behind) {
        *seen = Arc::clone(to);
    } else {
        advance(Arc::make_mut(seen), to);
    }
}

/// Moves `seen` forward to `to` in each partition where `to` is further.
pub(super) fn advance(seen: &mut Offsets, to: &Offsets) {
    for (partition, offset) in to {
        let known = seen.entry(*partition).or_insert(0);
        *known = (*known).max(*offset);
    }
}

/// Whether everything below `target` was seen.
pub(super) fn has_reached(seen: &Offsets, target: &Offsets) -> bool {
    if fault::is_on(Fault::NotCaughtUp) {
        return true;
    }
    target
        .iter()
        .all(|(partition, offset)| seen.get(partition).copied().unwrap_or(0) >= *offset)
}

/// Whether a message was seen.
pub(super) fn is_seen(seen: &Offsets, position: Position) -> bool {
    seen.get(&position.partition)
        .is_some_and(|next| position.offset < *next)
}

#[cfg(test)]
mod tests;
