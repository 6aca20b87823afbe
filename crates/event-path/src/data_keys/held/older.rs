//! The older part of the topic of keys: the part that an earlier run has read. A start reads it again after the newer
//! part. The newer part has the last word on a subject, except for tombstones, which are final in both parts.

use std::collections::HashSet;

use tandem_model::message::{Message, Position};

use super::{Held, HeldKey};
use crate::{
    checkpoint::Checkpoint,
    data_keys::keys_read::KeysRead,
    fault::{self, Fault},
    log::{Ends, Offsets},
};

/// How far the older part is read, and what must be known about the newer part meanwhile.
#[derive(Debug, Default)]
pub(in crate::data_keys) struct Older {
    /// The offset at which the newer part begins, for each partition.
    split: Offsets,
    /// The next offset to read in the older part, for each partition that is not finished.
    left: Offsets,
    /// Subjects for which the newer part has shown a key or a tombstone.
    shown: HashSet<Box<str>>,
    /// Subjects for which the newer part has shown a record that does not count.
    refused: HashSet<Box<str>>,
    /// Subjects for which the older part shows something that the store may not know.
    doubtful: HashSet<Box<str>>,
}

impl Older {
    fn has(&self, at: Position) -> bool {
        let split = self.split.get(&at.partition);
        split.is_some_and(|split| at.offset < *split)
    }
}

impl Held {
    /// Begins behind the part that an earlier run has read. `claims` are the claims in that part. They count as lost
    /// until the older part shows them.
    pub(in crate::data_keys) fn begin_behind(
        &mut self,
        read: &KeysRead,
        claims: Vec<Message>,
        ends: &Ends,
    ) {
        let split: Offsets = read
            .places()
            .into_iter()
            .map(|(partition, offset)| (partition, offset + 1))
            .collect();
        let left = ends.iter().filter_map(|(partition, (low, _))| {
            let split = split.get(partition)?;
            (low < split).then_some((*partition, *low))
        });
        let doubtful = read.doubtful().iter();
        self.older = Some(Older {
            left: left.collect(),
            split: split.clone(),
            doubtful: doubtful.map(|it| it.as_str().into()).collect(),
            ..Older::default()
        });
        self.next = split;
        let keys = claims.iter().filter_map(|claim| claim.key.as_deref());
        self.lost_claims = keys.map(Box::<str>::from).collect();
        self.claims = claims;
        self.last_before.clone_from(read.last());
        self.begins_behind = true;
    }

    /// Whether a record belongs to the older part, while that part is being read.
    pub(in crate::data_keys) fn is_older(&self, at: Position) -> bool {
        self.older.as_ref().is_some_and(|older| older.has(at))
    }

    /// The next offset in the older part, for each partition that is not finished.
    pub(in crate::data_keys) fn older_left(&self) -> Offsets {
        let older = self.older.as_ref();
        older.map(|older| older.left.clone()).unwrap_or_default()
    }

    /// Whether the older part is not completely read yet.
    pub(in crate::data_keys) fn has_older_left(&self) -> bool {
        let older = self.older.as_ref();
        older.is_some_and(|older| !older.left.is_empty())
    }

    /// Whether this record of the older part has not been read yet.
    pub(in crate::data_keys) fn is_older_unread(&self, at: Position) -> bool {
        self.older.as_ref().is_some_and(|older| {
            let next = older.left.get(&at.partition);
            older.has(at) && next.is_some_and(|next| *next <= at.offset)
        })
    }

    /// Notes that a partition of the older part is read up to this offset.
    pub(in crate::data_keys) fn reached_in_older(&mut self, partition: i32, reached: i64) {
        let Some(older) = &mut self.older else { return };
        let end = older.split.get(&partition);
        if end.is_none_or(|end| reached >= *end) {
            older.left.remove(&partition);
        } else if let Some(next) = older.left.get_mut(&partition) {
            *next = reached.max(*next);
        }
    }

    /// Drops the state of the older part once that part is read and judged.
    pub(in crate::data_keys) fn end_older(&mut self) {
        if !self.has_older_left() && !self.is_looking && self.unjudged.is_empty() {
            self.older = None;
        }
    }

    /// Handles a claim in the older part. Either it is a remembered claim or it was dropped as irrelevant, so it
    /// never brings anything new.
    pub(in crate::data_keys) fn finds_claim(&mut self, found: &Message) {
        let Some(key) = found.key.as_deref() else {
            return;
        };
        let mut claims = self.claims.iter();
        let last = claims.rfind(|claim| claim.key.as_deref() == Some(key));
        let is_it = last.is_some_and(|last| {
            last.position == found.position && Checkpoint::of(last) == Checkpoint::of(found)
        });
        if is_it {
            self.lost_claims.remove(key);
            self.placed.get_or_insert_with(|| found.clone());
        }
    }

    /// Applies a record of the older part. Returns whether the known state of the subject must be published again.
    pub(super) fn take_older(
        &mut self,
        subject: &str,
        wrapped: Option<Box<str>>,
        at: Position,
    ) -> bool {
        let older = self.older.as_ref();
        let Some(older) = older.filter(|_| !fault::is_on(Fault::OlderBelieved)) else {
            return self.take_in_order(subject, wrapped, at);
        };
        let is_outlived = older.refused.contains(subject);
        if !older.shown.contains(subject) {
            let is_revived = self.take_in_order(subject, wrapped, at);
            if is_outlived {
                self.count_as_lost(subject);
            }
            return is_outlived || is_revived;
        }
        if wrapped.is_some() {
            return false;
        }
        self.must_be_proven(subject);
        if self.is_erased(subject) {
            return false;
        }
        // A tombstone is final. The key in the newer part is an old one that was repeated, and compaction would keep
        // only that key.
        let erased = HeldKey {
            wrapped: None,
            at: None,
        };
        self.keys.insert(subject.into(), erased);
        true
    }

    /// Notes that the newer part has shown a subject.
    pub(super) fn newer_shows(&mut self, subject: &str) {
        if let Some(older) = &mut self.older {
            older.shown.insert(subject.into());
        }
    }

    /// Notes a record that does not count. Returns whether the known state of its subject is lost by that.
    pub(in crate::data_keys) fn refuse(&mut self, subject: &str, at: Position) -> bool {
        self.must_be_proven(subject);
        if let Some(older) = &mut self.older {
            if !older.has(at) {
                older.refused.insert(subject.into());
            } else if older.shown.contains(subject) {
                return false;
            }
        }
        self.count_as_lost(subject);
        true
    }

    /// Whether nothing can be said about a subject before the whole topic is read: the older part shows something
    /// about it that the store may not know.
    pub(in crate::data_keys) fn is_doubtful(&self, subject: &str) -> bool {
        let older = self.older.as_ref();
        older.is_some_and(|older| older.doubtful.contains(subject)) && !self.is_erased(subject)
    }

    /// Whether the store must be asked about a subject: the topic has shown nothing about it. While the older part is
    /// being read, the store is also asked if the topic has shown a key: the older part may hold a tombstone that the
    /// store knows and that was not read again yet.
    pub(in crate::data_keys) fn is_store_asked(&self, subject: &str) -> bool {
        match self.keys.get(subject) {
            Some(key) => self.older.is_some() && key.wrapped.is_some(),
            None => true,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;
    use crate::data_keys::keys_read::Place;

    const SPLIT: i64 = 10;

    fn at(offset: i64) -> Position {
        Position {
            partition: 0,
            offset,
        }
    }

    fn message(subject: &str, offset: i64, wrapped: Option<&str>) -> Message {
        let body = wrapped.map(|wrapped| serde_json::json!({ "wrapped": wrapped }).to_string());
        Message {
            topic: "keys".to_owned(),
            position: at(offset),
            key: Some(subject.to_owned()),
            headers: Vec::new(),
            payload: body.map(String::into_bytes),
            published_ms: None,
        }
    }

    /// State that begins behind offset 9, after an earlier run that left these claims and doubtful subjects.
    fn behind(claims: Vec<Message>, doubtful: &[&str]) -> Held {
        let last = [(0, Place::of(&message("last", SPLIT - 1, Some("z"))))].into();
        let doubtful: BTreeSet<String> = doubtful.iter().map(|it| (*it).to_owned()).collect();
        let read = KeysRead::new(None, last, &claims, doubtful);
        let mut held = Held {
            is_remembered: true,
            ..Held::default()
        };
        held.begin_behind(&read, claims, &[(0, (0, 20))].into());
        held
    }

    /// Applies these records in order. Returns the offsets after which the owner publishes the known state again.
    fn take(held: &mut Held, records: &[(&str, i64, Option<&str>)]) -> Vec<i64> {
        let taken = records.iter().filter(|(subject, offset, wrapped)| {
            held.take("keys", subject, &message(subject, *offset, *wrapped))
        });
        taken.map(|(_, offset, _)| *offset).collect()
    }

    fn held_of(held: &Held, subject: &str) -> (Option<String>, Option<i64>) {
        let key = &held.keys[subject];
        let wrapped = key.wrapped.as_deref().map(str::to_owned);
        (wrapped, key.at.map(|at| at.offset))
    }

    #[test]
    fn the_newer_part_has_the_last_word_over_the_older_one() {
        let mut held = behind(Vec::new(), &[]);
        let newer = [("key", 11, Some("new")), ("tombstone", 12, None)];
        assert!(take(&mut held, &newer).is_empty());
        let older = [
            ("key", 1, Some("old")),
            ("tombstone", 2, Some("old")),
            ("unheard", 3, Some("old")),
        ];
        assert!(take(&mut held, &older).is_empty());
        assert_eq!(held_of(&held, "key"), (Some("new".to_owned()), Some(11)));
        assert_eq!(held_of(&held, "tombstone"), (None, Some(12)));
        assert_eq!(held_of(&held, "unheard"), (Some("old".to_owned()), Some(3)));
    }

    #[test]
    fn a_tombstone_of_the_older_part_is_final_and_outlived_by_a_key_of_the_newer_one() {
        let mut held = behind(Vec::new(), &[]);
        assert!(take(&mut held, &[("1", 11, Some("again"))]).is_empty());
        assert!(held.is_store_asked("1"), "the store knows of the tombstone");
        let older = [("1", 1, Some("old")), ("1", 2, None), ("1", 3, None)];
        assert_eq!(take(&mut held, &older), [2]);
        assert_eq!(held_of(&held, "1"), (None, None));
        // Within the older part, log order decides.
        let within = [("2", 4, None), ("2", 5, Some("again"))];
        assert_eq!(take(&mut held, &within), [5]);
        assert_eq!(held_of(&held, "2"), (None, None));
    }

    #[test]
    fn what_a_record_of_the_newer_part_that_does_not_count_outlives_is_lost() {
        let mut held = behind(Vec::new(), &[]);
        assert!(held.refuse("1", at(11)));
        assert_eq!(take(&mut held, &[("1", 1, Some("a"))]), [1]);
        assert_eq!(held_of(&held, "1"), (Some("a".to_owned()), None));
        // A refused record in the older part is outlived by the newer part.
        take(&mut held, &[("2", 12, Some("b"))]);
        assert!(!held.refuse("2", at(2)));
        assert_eq!(held_of(&held, "2"), (Some("b".to_owned()), Some(12)));
    }

    #[test]
    fn the_older_part_is_over_when_it_is_read_and_judged() {
        let mut held = behind(Vec::new(), &["doubtful"]);
        assert!(held.is_doubtful("doubtful") && !held.is_doubtful("1"));
        assert!(held.is_older_unread(at(0)) && !held.is_older_unread(at(SPLIT)));
        held.reached_in_older(0, 5);
        assert!(!held.is_older_unread(at(4)));
        held.unjudged.push_back(message("1", 9, None));
        held.reached_in_older(0, SPLIT);
        held.end_older();
        assert!(!held.has_older_left() && held.is_older(at(9)));
        held.unjudged.clear();
        held.end_older();
        assert!(!held.is_older(at(9)) && !held.is_doubtful("doubtful"));
    }

    #[test]
    fn a_claim_counts_as_lost_until_the_older_part_shows_it() {
        let claim = |offset, says| message("!claim/accounts", offset, Some(says));
        let mut held = behind(vec![claim(1, "a"), claim(4, "b")], &[]);
        let ends = Ends::from([(0, (0, 20))]);
        let is_there = |held: &Held| held.claim_on_topic("!claim/accounts", &ends).is_some();
        for other in [claim(1, "a"), claim(4, "c"), claim(6, "d")] {
            held.finds_claim(&other);
            assert!(!is_there(&held));
        }
        held.finds_claim(&claim(4, "b"));
        assert!(is_there(&held));
        assert_eq!(held.claims, [claim(1, "a"), claim(4, "b")]);
    }

    #[test]
    fn a_topic_that_ends_before_what_was_read_is_read_from_its_beginning() {
        let mut held = behind(Vec::new(), &[]);
        held.next = [(0, 15)].into();
        let shorter = crate::log::TopicState {
            identity: None,
            ends: [(0, (0, 12))].into(),
        };
        assert!(held.compare(&held.next.clone(), &shorter));
        assert!(held.next.is_empty() && held.is_to_be_read_again);
        assert!(
            held.is_behind_itself,
            "tombstones may be among what was not read"
        );
        assert!(!held.has_older_left());
    }
}
