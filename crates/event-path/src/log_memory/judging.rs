//! Judges a partition by what is remembered of it. Pure: it asks nobody.

use std::collections::HashMap;

use super::Remembered;
use crate::checkpoint::Checkpoint;

/// Judges one partition by its ends and, if it still reaches so far, by the messages at the remembered places.
///
/// `found` says what is at the place of a message; `None` when there is none.
pub(super) fn judge<'a>(
    remembered: &'a Remembered,
    (low, high): (i64, i64),
    found: impl Fn(&'a Checkpoint) -> Option<&'a Checkpoint>,
) -> Option<String> {
    let Remembered { begin, last, .. } = remembered;
    let proven = remembered.proven.as_ref();
    let furthest = proven.map_or(last.offset, |proven| proven.offset.max(last.offset));
    if high <= furthest {
        return Some(format!(
            "it ends before offset {high}, and the message at offset {furthest} was applied: the topic was made anew, or lost its end"
        ));
    }
    if low > *begin {
        return Some(format!(
            "it begins at offset {low}, and began at {begin}: what was before is gone"
        ));
    }
    let mut applied = [Some(last), proven].into_iter().flatten();
    let other = applied.find(|applied| found(applied) != Some(*applied))?;
    Some(format!(
        "the message at offset {} is not the one that was applied: it is another log",
        other.offset
    ))
}

/// What was found at places of partitions; `None` where there is no message.
pub(super) type Found = HashMap<(i32, i64), Option<Checkpoint>>;

/// What is at the place of a message that was applied. What was not looked at, or was removed since, says nothing: that it was removed is told
/// by where the log begins.
pub(super) fn at<'a>(
    found: &'a Found,
    partition: i32,
    applied: &'a Checkpoint,
) -> Option<&'a Checkpoint> {
    match found.get(&(partition, applied.offset)) {
        Some(found) => found.as_ref(),
        None => Some(applied),
    }
}

#[cfg(test)]
mod tests;
