//! The cursors of subscribers: opaque to them, positions in the log to us.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use tandem_event_path::fault::{self, Fault};
use tandem_event_path::log::Offsets;
use tandem_model::message::Position;
use tandem_service::graphql::Cursor;

use super::{LiveError, held_back::HELD_AT_MOST};

/// A topic has fewer partitions than this; a cursor that has more is not ours.
const MOST_PARTITIONS: usize = 10_000;
/// Orders whose newest change a snapshot may be ahead of the log with, and its cursors still say which. Where they are more, whoever
/// resumes is given the snapshot again.
pub(super) const MOST_AHEAD: usize = 100;

/// Where a subscriber of orders is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// For each partition the offset of the next message that it has not seen.
    pub(super) seen: Offsets,
    /// The order that the next page of the snapshot begins behind; an empty text for the first page, `None` if there is no page to come.
    pub(super) snapshot: Option<String>,
    /// Revisions of orders that it has by the snapshot and whose events may come behind `seen`.
    pub(super) ahead: BTreeMap<String, i64>,
    /// What is below `seen` and was not told yet.
    pub(super) held: BTreeSet<Position>,
}

/// A place in the middle of a snapshot, or shortly behind one, or with changes that are held back.
#[derive(Serialize, Deserialize)]
struct WithSnapshot {
    p: Offsets,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    s: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    a: BTreeMap<String, i64>,
    /// For each partition the offsets that are held back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    h: BTreeMap<i32, Vec<i64>>,
}

/// Where a subscriber of a customer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CustomerPlace {
    /// For each partition the offset of the next message that it has not seen.
    #[serde(rename = "p")]
    pub(super) seen: Offsets,
    /// The newest revision that it has; 0 for none.
    #[serde(rename = "r")]
    pub(super) revision: i64,
}

impl Place {
    pub(super) fn at(seen: Offsets) -> Self {
        Self {
            seen,
            ..Self::default()
        }
    }

    /// Whether a message was not read, or was held back and not told yet.
    pub(super) fn is_news(&self, position: Position) -> bool {
        !is_seen(&self.seen, position) || self.held.contains(&position)
    }

    pub(super) fn encode(&self) -> String {
        if self.snapshot.is_none() && self.ahead.is_empty() && self.held.is_empty() {
            return Cursor(&self.seen).encode();
        }
        let is_kept = self.ahead.len() <= MOST_AHEAD;
        let mut held: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        for Position { partition, offset } in &self.held {
            held.entry(*partition).or_default().push(*offset);
        }
        Cursor(WithSnapshot {
            p: self.seen.clone(),
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
        })
        .encode()
    }

    pub(super) fn decode(text: &str) -> Result<Self, LiveError> {
        let plain = Cursor::<Offsets>::decode(text).map(|Cursor(seen)| Self::at(seen));
        let place = plain.or_else(|_| {
            Cursor::<WithSnapshot>::decode(text).map(|Cursor(WithSnapshot { p, s, a, h })| Self {
                seen: p,
                snapshot: s,
                ahead: a,
                held: h.into_iter().flat_map(positions).collect(),
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

impl CustomerPlace {
    pub(super) fn encode(&self) -> String {
        Cursor(self).encode()
    }

    pub(super) fn decode(text: &str) -> Result<Self, LiveError> {
        Cursor::<Self>::decode(text)
            .ok()
            .map(|Cursor(place)| place)
            .filter(|place| are_offsets(&place.seen) && place.revision >= 0)
            .ok_or_else(not_ours)
    }
}

/// What a text is written as that is taken for a cursor of a feed of orders, and of customers; for tests of what is taken.
#[must_use]
pub fn rewritten(text: &str) -> [Option<String>; 2] {
    [
        Place::decode(text).ok().map(|place| place.encode()),
        CustomerPlace::decode(text).ok().map(|place| place.encode()),
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

/// Where to read from: the cursor, with the log's beginning for partitions that it does not know yet.
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

/// Where to begin to read so that also what is held back is read again.
pub(super) fn with_held(seen: &Offsets, held: &BTreeSet<Position>) -> Offsets {
    let mut from = seen.clone();
    for Position { partition, offset } in held {
        let next = from.entry(*partition).or_insert(*offset);
        *next = (*next).min(*offset);
    }
    from
}

/// Moves `seen` back to `to` where that is earlier, or not named in it.
pub(super) fn step_back(seen: &mut Offsets, to: &Offsets) {
    for (partition, offset) in to {
        let known = seen.entry(*partition).or_insert(*offset);
        *known = (*known).min(*offset);
    }
}

/// Moves `seen` on to `to` where that is further.
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
