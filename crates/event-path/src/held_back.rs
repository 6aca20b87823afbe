//! Records that a log holds and does not show yet: those behind the start of an open transaction, up to the end of the
//! partition.
//!
//! Readers see only committed records. While another producer's transaction is open, a partition can be read only up to
//! the start of that transaction. Records of others behind it are hidden too. A reader that draws conclusions from what
//! is missing at an end must ask here first.

use std::{fmt, time::Duration};

use tandem_runtime::{backoff::Backoff, clock::Clock};

use crate::log::{Ends, Log, LogError};

/// The pauses between two looks at the ends.
const LOOK: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// The part of a partition that cannot be read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The partition.
    pub partition: i32,
    /// The first offset that cannot be read.
    pub from: i64,
    /// The offset behind the last record.
    pub end: i64,
}

/// The parts of a topic that cannot be read yet, in order of their partitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldBackParts(pub Vec<HeldBack>);

impl HeldBackParts {
    /// The parts between the readable ends and the ends of the whole topic.
    #[must_use]
    pub fn between(readable: &Ends, whole: &Ends) -> Self {
        let part = |(&partition, &(low, end)): (&i32, &(i64, i64))| {
            let from = readable.get(&partition).map_or(low, |(_, high)| *high);
            (from < end).then_some(HeldBack {
                partition,
                from,
                end,
            })
        };
        Self(whole.iter().filter_map(part).collect())
    }

    /// Whether all of the topic can be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for HeldBackParts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, part) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { ", " };
            let HeldBack {
                partition,
                from,
                end,
            } = part;
            write!(
                formatter,
                "{separator}partition {partition} from offset {from} to {end}"
            )?;
        }
        Ok(())
    }
}

/// Returns the readable ends of a topic, and the parts that were in the topic at the time of the call and still cannot
/// be read.
///
/// It waits for open transactions to end, for about `limit` at most. If it has to wait, it calls `told` once.
///
/// # Errors
/// When the log does not answer.
pub async fn readable_ends(
    log: &dyn Log,
    topic: &str,
    limit: Duration,
    clock: &Clock,
    mut told: impl FnMut(&HeldBackParts),
) -> Result<(Ends, HeldBackParts), LogError> {
    let whole = log.uncommitted_ends(topic).await?;
    let begun = clock.instant();
    let mut pauses = LOOK.pauses(clock);
    let mut is_told = false;
    loop {
        let ends = log.topic(topic).await?.ends;
        let parts = HeldBackParts::between(&ends, &whole);
        if parts.is_empty() || clock.since(begun) >= limit {
            return Ok((ends, parts));
        }
        if !std::mem::replace(&mut is_told, true) {
            told(&parts);
        }
        clock.sleep(pauses.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_that_is_held_back_is_named_with_its_offsets() {
        let whole = Ends::from([(0, (0, 9)), (1, (0, 4)), (2, (3, 7)), (3, (0, 0))]);
        let readable = Ends::from([(0, (0, 4)), (1, (0, 4)), (3, (0, 0))]);
        let parts = HeldBackParts::between(&readable, &whole);
        assert_eq!(
            parts.to_string(),
            "partition 0 from offset 4 to 9, partition 2 from offset 3 to 7"
        );
        // A record that was written later is not held back.
        assert!(HeldBackParts::between(&whole, &readable).is_empty());
    }
}
