//! The revisions of each id that a rebuild has read from the log. They are held in memory and compared with the stored
//! ones.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::store::PublishedRow;

/// Which revisions of an id a store keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// The newest: aggregates and replicas.
    Newest,
    /// Every one, as it was first seen: an audit trail.
    Each,
}

/// The ids and revisions of the messages read so far. An id takes about 100 bytes, because its revisions are nearly
/// always 1, 2, 3, …
#[derive(Debug, Default)]
pub(super) struct Logged {
    known: HashMap<Box<str>, Revisions>,
    /// Ids of messages that could not be read. Nothing is certain about these ids, so their rows are left alone.
    doubtful: HashSet<Box<str>>,
    /// For each id, the newest revision that the log first showed as a restored event. The original events before it
    /// are lost for good.
    restored: HashMap<Box<str>, i64>,
}

/// The revisions of one id.
#[derive(Debug, Default)]
struct Revisions {
    /// All revisions from 1 to this one are known.
    through: i64,
    /// Known revisions behind a gap. Only a log that was tampered with or is incomplete has such gaps.
    #[allow(clippy::box_collection)]
    // 8 bytes instead of 24, for a set that is nearly always missing
    others: Option<Box<BTreeSet<i64>>>,
}

impl Revisions {
    /// Adds a revision. Returns whether it is new.
    fn insert(&mut self, revision: i64) -> bool {
        if self.contains(revision) {
            return false;
        }
        if revision == self.through + 1 {
            self.through = revision;
            if let Some(others) = &mut self.others {
                while others.remove(&(self.through + 1)) {
                    self.through += 1;
                }
            }
            self.others = self.others.take().filter(|others| !others.is_empty());
        } else {
            self.others.get_or_insert_default().insert(revision);
        }
        true
    }

    fn contains(&self, revision: i64) -> bool {
        let behind_a_gap = |others: &BTreeSet<i64>| others.contains(&revision);
        (1..=self.through).contains(&revision) || self.others.as_deref().is_some_and(behind_a_gap)
    }

    fn newest(&self) -> i64 {
        let last = self.others.as_ref().and_then(|others| others.last());
        last.map_or(self.through, |last| *last.max(&self.through))
    }
}

impl Logged {
    /// Notes a revision. Returns whether this is its first occurrence.
    pub(super) fn note(&mut self, id: &str, revision: i64) -> bool {
        if let Some(revisions) = self.known.get_mut(id) {
            return revisions.insert(revision);
        }
        self.known.entry(id.into()).or_default().insert(revision)
    }

    /// Notes that the first occurrence of a revision is a restored event.
    pub(super) fn note_restored(&mut self, id: &str, revision: i64) {
        let newest = self.restored.entry(id.into()).or_default();
        *newest = revision.max(*newest);
    }

    /// Whether an entry is older than the state that the log was restored from. Only the store still has such entries.
    pub(super) fn is_before_restored(&self, seen: &PublishedRow) -> bool {
        let restored = self.restored.get(seen.id.as_str());
        restored.is_some_and(|restored| seen.revision < *restored)
    }

    /// Notes that a message of this id could not be read.
    pub(super) fn doubt(&mut self, id: &str) {
        if !self.doubtful.contains(id) {
            self.doubtful.insert(id.into());
        }
    }

    /// Whether the log has shown any revision of this id.
    pub(super) fn knows(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Whether a message of this id could not be read. It may be the one that seems to be missing.
    pub(super) fn is_doubtful(&self, id: &str) -> bool {
        self.doubtful.contains(id)
    }

    /// Whether the log has not shown what is stored: either the id is unknown, or the revision is.
    pub(super) fn misses(&self, seen: &PublishedRow, keeps: Keeps) -> bool {
        match (self.known.get(seen.id.as_str()), keeps) {
            (None, _) => true,
            (Some(revisions), Keeps::Newest) => seen.revision > revisions.newest(),
            (Some(revisions), Keeps::Each) => !revisions.contains(seen.revision),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, revision: i64) -> PublishedRow {
        PublishedRow {
            id: id.to_owned(),
            revision,
            version: Vec::new(),
        }
    }

    #[test]
    fn a_revision_is_new_once() {
        let mut logged = Logged::default();
        let is_new: Vec<bool> = [1, 2, 1, 5, 4, 5, 3, 3, 6]
            .into_iter()
            .map(|revision| logged.note("a", revision))
            .collect();
        assert_eq!(
            is_new,
            [true, true, false, true, true, false, true, false, true]
        );
        assert!(logged.known["a"].others.is_none());
        assert_eq!(logged.known["a"].through, 6);
        assert!(logged.note("b", 6));
    }

    #[test]
    fn a_state_is_missed_when_its_id_is_unknown_or_its_revision_ahead() {
        let mut logged = Logged::default();
        for revision in [1, 2, 4] {
            logged.note("a", revision);
        }
        for (id, revision, missed) in [
            ("a", 0, false),
            ("a", 3, false),
            ("a", 4, false),
            ("a", 5, true),
            ("b", 1, true),
            ("b", 0, true),
        ] {
            let misses = logged.misses(&seen(id, revision), Keeps::Newest);
            assert_eq!(misses, missed, "{id} {revision}");
        }
        assert!(logged.knows("a") && !logged.knows("b"));
    }

    #[test]
    fn an_entry_is_missed_when_its_revision_was_not_shown() {
        let mut logged = Logged::default();
        for revision in [1, 2, 4] {
            logged.note("a", revision);
        }
        for (id, revision, missed) in [
            ("a", 0, true),
            ("a", 2, false),
            ("a", 3, true),
            ("a", 4, false),
            ("a", 5, true),
            ("b", 1, true),
        ] {
            let misses = logged.misses(&seen(id, revision), Keeps::Each);
            assert_eq!(misses, missed, "{id} {revision}");
        }
    }

    #[test]
    fn what_is_older_than_a_restored_revision_is_only_in_the_store() {
        let mut logged = Logged::default();
        for revision in [3, 2] {
            logged.note("a", revision);
            logged.note_restored("a", revision);
        }
        logged.note("b", 3);
        for (id, revision, is_before) in [("a", 1, true), ("a", 2, true), ("a", 3, false)] {
            assert_eq!(logged.is_before_restored(&seen(id, revision)), is_before);
        }
        assert!(!logged.is_before_restored(&seen("b", 1)));
    }

    #[test]
    fn an_id_with_an_unreadable_message_is_doubtful() {
        let mut logged = Logged::default();
        logged.note("a", 1);
        logged.doubt("a");
        logged.doubt("b");
        assert!(logged.is_doubtful("a") && logged.is_doubtful("b"));
        assert!(!logged.is_doubtful("c") && !logged.knows("b"));
    }
}
