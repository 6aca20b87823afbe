//! The state of an idempotent producer in one partition, so that batches that are sent again are not stored again
//! (KIP-98).

use std::collections::VecDeque;

use crate::record_batch::{Sequence, sequence_after};

/// How many batches are remembered: as many as a producer may have in flight (`max.in.flight.requests.per.connection`).
const REMEMBERED: usize = 5;

/// A producer's last batches in one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Producer {
    epoch: i16,
    /// When it last wrote to this partition, in milliseconds since 1970.
    pub(crate) wrote_at: i64,
    recent: VecDeque<Stored>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stored {
    first: i32,
    last: i32,
    offset: i64,
}

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SequenceCheck {
    /// Append it, because it is the next one.
    Append,
    /// Ignore it, because it is already stored at this offset.
    Duplicate(i64),
    /// Refuse it, because an earlier batch is missing.
    OutOfOrder,
    /// Refuse it, because a newer instance of the producer has written to this partition.
    Fenced,
}

impl Producer {
    /// What to do with a batch, given the known state of its producer. An unknown producer may begin with any sequence
    /// number, because its state may have been forgotten.
    pub(crate) fn check(known: Option<&Self>, sequence: Sequence) -> SequenceCheck {
        let Some(known) = known else {
            return SequenceCheck::Append;
        };
        if sequence.epoch < known.epoch {
            return SequenceCheck::Fenced;
        }
        if sequence.epoch > known.epoch {
            return if sequence.first == 0 {
                SequenceCheck::Append
            } else {
                SequenceCheck::OutOfOrder
            };
        }
        let same =
            |stored: &&Stored| stored.first == sequence.first && stored.last == sequence.last;
        if let Some(stored) = known.recent.iter().find(same) {
            return SequenceCheck::Duplicate(stored.offset);
        }
        match known.recent.back() {
            Some(stored) if sequence.first != sequence_after(stored.last, 1) => {
                SequenceCheck::OutOfOrder
            }
            _ => SequenceCheck::Append,
        }
    }

    /// The state after the batch was stored at this offset.
    pub(crate) fn after(known: Option<&Self>, sequence: Sequence, offset: i64, now: i64) -> Self {
        let mut recent = known
            .filter(|known| known.epoch == sequence.epoch)
            .map(|known| known.recent.clone())
            .unwrap_or_default();
        if recent.len() >= REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(Stored {
            first: sequence.first,
            last: sequence.last,
            offset,
        });
        Self {
            epoch: sequence.epoch,
            wrote_at: now,
            recent,
        }
    }

    /// The stored form: epoch, time, then first and last sequence number and offset of each batch, all big-endian.
    pub(crate) fn to_row(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(10 + 16 * self.recent.len());
        row.extend_from_slice(&self.epoch.to_be_bytes());
        row.extend_from_slice(&self.wrote_at.to_be_bytes());
        for stored in &self.recent {
            row.extend_from_slice(&stored.first.to_be_bytes());
            row.extend_from_slice(&stored.last.to_be_bytes());
            row.extend_from_slice(&stored.offset.to_be_bytes());
        }
        row
    }

    /// Parses the stored form; `None` if it is invalid.
    pub(crate) fn from_row(row: &[u8]) -> Option<Self> {
        let (epoch, rest) = row.split_first_chunk()?;
        let (wrote_at, mut rest) = rest.split_first_chunk()?;
        let mut recent = VecDeque::new();
        while !rest.is_empty() {
            let (first, after_first) = rest.split_first_chunk()?;
            let (last, after_last) = after_first.split_first_chunk()?;
            let (offset, after_offset) = after_last.split_first_chunk()?;
            recent.push_back(Stored {
                first: i32::from_be_bytes(*first),
                last: i32::from_be_bytes(*last),
                offset: i64::from_be_bytes(*offset),
            });
            rest = after_offset;
        }
        Some(Self {
            epoch: i16::from_be_bytes(*epoch),
            wrote_at: i64::from_be_bytes(*wrote_at),
            recent,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sequence(epoch: i16, first: i32, last: i32) -> Sequence {
        Sequence {
            producer: 7,
            epoch,
            first,
            last,
        }
    }

    fn after(batches: &[(i32, i32)]) -> Producer {
        let mut known = None;
        for (number, (first, last)) in batches.iter().enumerate() {
            let offset = i64::try_from(number).unwrap() * 100;
            let next = Producer::after(known.as_ref(), sequence(0, *first, *last), offset, 1);
            known = Some(next);
        }
        known.unwrap()
    }

    #[test]
    fn the_next_batch_is_appended_and_one_sent_again_is_known_by_its_offset() {
        let known = after(&[(0, 9), (10, 19)]);
        let check = |first, last| Producer::check(Some(&known), sequence(0, first, last));
        assert_eq!(check(20, 20), SequenceCheck::Append);
        assert_eq!(check(0, 9), SequenceCheck::Duplicate(0));
        assert_eq!(check(10, 19), SequenceCheck::Duplicate(100));
    }

    #[test]
    fn a_gap_and_a_batch_cut_anew_are_out_of_order() {
        let known = after(&[(0, 9)]);
        let check = |first, last| Producer::check(Some(&known), sequence(0, first, last));
        assert_eq!(check(11, 11), SequenceCheck::OutOfOrder);
        assert_eq!(check(5, 14), SequenceCheck::OutOfOrder);
    }

    #[test]
    fn a_newer_epoch_begins_at_0_and_fences_the_older() {
        let known = Producer::after(None, sequence(3, 0, 0), 0, 1);
        let check = |epoch, first| Producer::check(Some(&known), sequence(epoch, first, first));
        assert_eq!(check(4, 0), SequenceCheck::Append);
        assert_eq!(check(4, 1), SequenceCheck::OutOfOrder);
        assert_eq!(check(2, 1), SequenceCheck::Fenced);
    }

    #[test]
    fn sequence_numbers_begin_anew_behind_the_largest() {
        let known = after(&[(i32::MAX - 1, i32::MAX)]);
        let check = |first| Producer::check(Some(&known), sequence(0, first, first));
        assert_eq!(check(0), SequenceCheck::Append);
        assert_eq!(check(1), SequenceCheck::OutOfOrder);
        assert_eq!(sequence_after(i32::MAX, 3), 2);
    }

    #[test]
    fn five_batches_are_remembered_also_over_a_restart() {
        let known = after(&[(0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]);
        let known = Producer::from_row(&known.to_row()).unwrap();
        let check = |first| Producer::check(Some(&known), sequence(0, first, first));
        assert_eq!(check(0), SequenceCheck::OutOfOrder);
        assert_eq!(check(1), SequenceCheck::Duplicate(100));
        assert!(Producer::from_row(&known.to_row()[..20]).is_none());
    }
}
