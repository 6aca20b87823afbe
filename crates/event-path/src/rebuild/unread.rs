//! The part of a log behind the last position that a store remembers reading. It is computed from offsets, without
//! reading the log.

use std::collections::BTreeMap;

use crate::{
    log::{Ends, Offsets},
    log_memory::Remembered,
};

/// The part of a topic that a store does not remember reading. After a crash it is the last moments. If the store was
/// restored from a backup, it is everything since the backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// The offset where the part begins, for each partition. It equals the end if nothing is unread. All partitions are
    /// named, because a reader by assignment would find a missing one and read it from its beginning.
    pub from: Offsets,
    /// The ends of the same partitions.
    pub to: Ends,
}

impl Unread {
    /// The part between the remembered positions and these ends. A partition without a remembered position counts as
    /// unread from its beginning. The exception is a store of an older version that remembers no partition
    /// (`remembers_all` is false): its part is empty.
    pub(super) fn of(
        remembered: &BTreeMap<i32, Remembered>,
        ends: &Ends,
        remembers_all: bool,
    ) -> Self {
        let mut unread = Self::default();
        if remembered.is_empty() && !remembers_all {
            return unread;
        }
        for (&partition, &(low, high)) in ends {
            let known = remembered.get(&partition);
            let next = known.map_or(low, |known| known.last.offset.saturating_add(1));
            unread.from.insert(partition, next.max(low).min(high));
            unread.to.insert(partition, (low, high));
        }
        unread
    }

    /// Whether nothing is unread.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let mut ends = self.to.iter();
        ends.all(|(partition, (_, high))| self.from.get(partition) == Some(high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    fn up_to(last: &[(i32, i64)]) -> BTreeMap<i32, Remembered> {
        let remembered = |offset| Remembered {
            begin: 0,
            last: Checkpoint {
                offset,
                fingerprint: String::new(),
            },
            proven: None,
            identity: None,
        };
        last.iter()
            .map(|(partition, offset)| (*partition, remembered(*offset)))
            .collect()
    }

    fn unread(last: &[(i32, i64)], ends: &[(i64, i64)], remembers_all: bool) -> Vec<(i32, i64)> {
        let ends: Ends = (0..).zip(ends.iter().copied()).collect();
        let unread = Unread::of(&up_to(last), &ends, remembers_all);
        assert!(unread.from.keys().eq(unread.to.keys()));
        let begins = unread.from.iter().map(|(it, next)| (*it, *next));
        let begins: Vec<(i32, i64)> = begins.filter(|(it, next)| *next < ends[it].1).collect();
        assert_eq!(unread.is_empty(), begins.is_empty());
        begins
    }

    #[test]
    fn a_store_that_has_read_to_the_end_is_not_behind() {
        assert!(unread(&[(0, 9), (1, 4)], &[(0, 10), (0, 5)], true).is_empty());
        assert!(unread(&[], &[(0, 0), (7, 7)], true).is_empty());
    }

    #[test]
    fn what_lies_behind_the_last_remembered_message_is_unread() {
        let found = unread(&[(0, 6), (1, 4)], &[(0, 10), (0, 5)], false);
        assert_eq!(found, [(0, 7)]);
    }

    #[test]
    fn a_partition_of_which_nothing_is_remembered_is_unread_from_its_beginning() {
        assert_eq!(unread(&[(0, 9)], &[(0, 10), (3, 5)], false), [(1, 3)]);
        assert_eq!(unread(&[], &[(0, 2)], true), [(0, 0)]);
    }

    #[test]
    fn of_a_store_of_an_older_version_that_remembers_nothing_nothing_is_concluded() {
        assert!(unread(&[], &[(0, 10), (0, 5)], false).is_empty());
    }

    #[test]
    fn what_is_gone_from_the_beginning_of_the_log_is_not_read() {
        assert_eq!(unread(&[(0, 2)], &[(5, 10)], true), [(0, 5)]);
    }

    #[test]
    fn a_log_that_ends_before_what_is_remembered_has_nothing_unread() {
        assert!(unread(&[(0, 20)], &[(0, 10)], true).is_empty());
    }
}
