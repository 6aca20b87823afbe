//! The cursor of a subscriber: for each partition the offset of the next message that it has not seen.

use std::collections::BTreeMap;

use tandem_kit::{graphql::Cursor, kafka::tail::Offsets};

use super::LiveError;

/// A topic has fewer partitions than this; a cursor that has more is not ours.
const MOST_PARTITIONS: usize = 10_000;

pub(super) fn encode(seen: &Offsets) -> String {
    Cursor(seen).encode()
}

pub(super) fn decode(text: &str) -> Result<Offsets, LiveError> {
    Cursor::<Offsets>::decode(text)
        .ok()
        .map(|Cursor(seen)| seen)
        .filter(|seen| (1..=MOST_PARTITIONS).contains(&seen.len()))
        .filter(|seen| {
            seen.iter()
                .all(|(partition, offset)| *partition >= 0 && *offset >= 0)
        })
        .ok_or_else(|| {
            LiveError::BadCursor(
                "is no cursor of this subscription; take one from an update's `cursor`".to_owned(),
            )
        })
}

/// Where to read from: the cursor, with the log's beginning for partitions that it does not know yet.
pub(super) fn starting_points(
    cursor: &Offsets,
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
            if from < *first {
                return Err(LiveError::BadCursor(
                    "is older than what the log keeps: subscribe without it".to_owned(),
                ));
            }
            Ok((*partition, from))
        })
        .collect()
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
    target
        .iter()
        .all(|(partition, offset)| seen.get(partition).copied().unwrap_or(0) >= *offset)
}
