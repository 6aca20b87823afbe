//! Judges a partition by what is remembered of it. A pure function without I/O.

use std::collections::HashMap;

use super::Remembered;
use crate::checkpoint::Checkpoint;

/// Judges one partition by its ends and, if it still reaches that far, by the messages at the remembered offsets.
/// Returns the difference as a sentence.
///
/// `found` returns what is at the position of a message, or `None` if there is no message.
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

/// What was found at positions of partitions. `None` stands for a position without a message.
pub(super) type Found = HashMap<(i32, i64), Option<Checkpoint>>;

/// What is at the position of an applied message. A position that was not read counts as unchanged. If its message was
/// removed, the beginning of the log shows that.
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
