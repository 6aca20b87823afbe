//! The state that was read from the topic of keys: data keys, claims, and records that still have to be judged.

mod older;
mod progress;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use tandem_model::message::{Message, Position};

use super::{Known, Published, keys_read::Place};
use crate::{
    fault::{self, Fault},
    log::{Ends, Offsets, TopicState},
    signing::Signer,
};

use older::Older;

/// Why a partition may end before the read position.
const MADE_ANEW: &str = "the topic was made anew, or lost its end";

/// Everything that was read so far.
#[derive(Default)]
pub(super) struct Held {
    pub(super) keys: HashMap<Box<str>, HeldKey>,
    /// Subjects that were asked for and that the whole topic did not show. Later look-ups do not wait for them again.
    /// Their events wait in the store, and are woken when the key arrives.
    pub(super) missed: HashSet<Box<str>>,
    /// The claims on the topics, in log order.
    pub(super) claims: Vec<Message>,
    /// The claim that was found at its position last: at first the first claim that was read of this topic. A newer
    /// claim may belong to another topic of this name.
    pub(super) placed: Option<Message>,
    /// Keys of claims that a previous topic of this name or an earlier run has shown, and the present topic has not
    /// shown yet.
    pub(super) lost_claims: HashSet<Box<str>>,
    /// Partitions that are not the ones that were read, each with the difference, until an operator accepts it.
    pub(super) replaced: BTreeMap<i32, String>,
    /// Records that wait, in log order: until it is known whose signatures count, or while the key of the first one
    /// is looked for.
    pub(super) unjudged: VecDeque<Message>,
    /// Whether that look-up is running.
    pub(super) is_looking: bool,
    /// The signer whose signatures counted for records that were accepted before the claims were judged.
    pub(super) early: Option<Signer>,
    /// Whether the first waiting record was judged, and cannot be accepted before the claims are judged.
    pub(super) is_front_doubtful: bool,
    /// Whether the whole topic has to be read again. Records that arrive before that read begins are ignored.
    pub(super) is_to_be_read_again: bool,
    /// Whether reading was restarted and has not reached the end since. A subject that is not shown yet may have a
    /// tombstone that was read before.
    pub(super) is_behind_itself: bool,
    /// The next offset to read in each partition.
    pub(super) next: Offsets,
    /// The identity of the topic that was read last, if the client reports one.
    pub(super) identity: Option<String>,
    /// The part that an earlier run has read, while it is read again.
    pub(super) older: Option<Older>,
    /// Whether reading began behind the older part. Then the claims are the remembered and the newer ones, which need
    /// not be all claims of the topic.
    pub(super) begins_behind: bool,
    /// How many records are being judged.
    pub(super) judging: usize,
    /// Whether the store remembers how far the topic was read.
    pub(super) is_remembered: bool,
    /// For each partition, the last record that was read (`last`), and the last one that an earlier run has read.
    pub(super) last: BTreeMap<i32, Message>,
    pub(super) last_before: BTreeMap<i32, Place>,
    /// Subjects for which a tombstone or a refused record was read. Before the progress is remembered, the store must
    /// know about them, or they are named as doubtful.
    pub(super) to_be_proven: HashSet<Box<str>>,
}

/// The newest state of a subject on the topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeldKey {
    /// The wrapped key; `None` if the subject is erased.
    pub(super) wrapped: Option<Box<str>>,
    /// The position of the record. `None` if it was on another topic of this name, or if a later record of the
    /// subject must be overwritten: compaction would keep only that later one.
    pub(super) at: Option<Position>,
}

/// What the topic of keys has shown about some subjects, and which of these records it still has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnTopic {
    /// Wrapped keys that the topic still has.
    pub wrapped: HashMap<String, String>,
    /// Subjects whose tombstone was read. A tombstone is final, whether the topic still has it or not.
    pub erased: HashSet<String>,
    /// Erased subjects whose tombstone the topic still has.
    pub tombstones: HashSet<String>,
}

/// Whether a position lies between the ends of its partition.
fn reaches(ends: &Ends, at: Position) -> bool {
    let ends = ends.get(&at.partition);
    ends.is_some_and(|(low, high)| (*low..*high).contains(&at.offset))
}

impl Held {
    pub(super) fn shows(&mut self, subject: &str, wrapped: Option<Box<str>>, at: Position) {
        let at = Some(at);
        self.keys.insert(subject.into(), HeldKey { wrapped, at });
    }

    /// Applies a record that counts. Returns whether the known state of the subject must be published again: the
    /// record would restore an erased key (which is not applied), or a refused record outlives it.
    pub(super) fn take(&mut self, topic: &str, subject: &str, message: &Message) -> bool {
        self.missed.remove(subject);
        let says = message.payload.as_deref();
        let wrapped: Option<Box<str>> = match says.map(serde_json::from_slice::<Published>) {
            None => None,
            Some(Ok(published)) => Some(published.wrapped.into()),
            Some(Err(error)) => {
                tracing::error!(topic, subject, %error, "a data key cannot be read");
                return false;
            }
        };
        if self.is_older(message.position) {
            return self.take_older(subject, wrapped, message.position);
        }
        self.newer_shows(subject);
        self.take_in_order(subject, wrapped, message.position)
    }

    /// Applies a record that is newer than all applied records of its subject. Returns whether it would restore an
    /// erased key.
    fn take_in_order(&mut self, subject: &str, wrapped: Option<Box<str>>, at: Position) -> bool {
        if wrapped.is_none() {
            self.must_be_proven(subject);
        } else if self.is_erased(subject) {
            self.count_as_lost(subject);
            return true;
        }
        self.shows(subject, wrapped, at);
        false
    }

    /// Discards the state that was read, so that the whole topic is read and judged again.
    pub(super) fn read_again(&mut self) {
        *self = Self {
            is_to_be_read_again: true,
            is_behind_itself: true,
            is_looking: self.is_looking,
            judging: self.judging,
            is_remembered: self.is_remembered,
            identity: self.identity.take(),
            replaced: std::mem::take(&mut self.replaced),
            ..Self::default()
        };
    }

    /// Marks the known state of a subject as lost: a later record, which does not count, outlives it on the topic.
    pub(super) fn count_as_lost(&mut self, subject: &str) {
        if fault::is_on(Fault::OutlivedBelieved) {
            return;
        }
        if let Some(key) = self.keys.get_mut(subject) {
            key.at = None;
        }
    }

    pub(super) fn is_erased(&self, subject: &str) -> bool {
        self.keys
            .get(subject)
            .is_some_and(|key| key.wrapped.is_none())
    }

    /// Compares what was read with the topic as it is now, and returns whether it is another topic. A topic that was
    /// created again, or of which one partition ends before the read position, is read from its beginning, all of it:
    /// its other partitions may have grown past the read positions. If all of them have, and the client reports no
    /// identity, [`Self::goes_back`] and [`Self::placed_claims`] detect it. `before` holds the read positions from
    /// before the topic was queried.
    pub(super) fn compare(&mut self, before: &Offsets, state: &TopicState) -> bool {
        let is_another =
            matches!((&self.identity, &state.identity), (Some(was), Some(is)) if was != is);
        if state.identity.is_some() {
            self.identity.clone_from(&state.identity);
        }
        if is_another {
            self.replace("it has another identity: the topic was made anew");
            return true;
        }
        let shorter = self.next.iter().find_map(|(partition, next)| {
            let (_, high) = state.ends.get(partition)?;
            // Records that were read since the query may lie behind the reported end.
            let is_shorter = next > high && before.get(partition) > Some(high);
            is_shorter.then(|| {
                format!(
                    "partition {partition} ends before offset {high}, and was read to offset {next}: {MADE_ANEW}"
                )
            })
        });
        let Some(what) = shorter else {
            return false;
        };
        self.replace(&what);
        true
    }

    /// Compares the position of a record with what the same reader has read before, and returns whether the topic is
    /// another one. If a topic ends before the offset that is asked for, a client silently continues at its beginning.
    /// When its ends are queried next, the topic may have grown past the read positions.
    pub(super) fn goes_back(&mut self, at: Position, read: i64) -> bool {
        let Position { partition, offset } = at;
        if offset >= read || self.is_to_be_read_again {
            return false;
        }
        self.replace(&format!(
            "partition {partition} went on at offset {offset}, and was read to offset {read}: {MADE_ANEW}"
        ));
        true
    }

    /// Stops reading the older part separately, and discards the remembered progress, which belongs to another topic.
    /// The whole topic is read instead, and nothing is answered before that.
    fn gives_up_older(&mut self) {
        self.last.clear();
        self.last_before.clear();
        self.is_behind_itself |= self.older.take().is_some();
    }

    /// Treats the whole topic as another one than the one that was read, and notes the difference for each partition.
    pub(super) fn replace(&mut self, what: &str) {
        // Records that arrive before the new read begins do not count as read.
        self.is_to_be_read_again = true;
        self.gives_up_older();
        self.placed = None;
        let read = std::mem::take(&mut self.next);
        self.replaced.extend(
            read.into_keys()
                .map(|partition| (partition, what.to_owned())),
        );
        self.keys.values_mut().for_each(|key| key.at = None);
        let claims = self.claims.iter();
        self.lost_claims
            .extend(claims.filter_map(|claim| claim.key.as_deref().map(Box::<str>::from)));
    }

    /// The last claim with this key, if the topic still has it at the position where it was read.
    pub(super) fn claim_on_topic(&self, key: &str, ends: &Ends) -> Option<&Message> {
        let last = self
            .claims
            .iter()
            .rfind(|claim| claim.key.as_deref() == Some(key))?;
        self.is_on_topic(last, ends).then_some(last)
    }

    /// Whether the topic still has a claim at the position where it was read, unless it was compacted.
    fn is_on_topic(&self, claim: &Message, ends: &Ends) -> bool {
        let key = claim.key.as_deref().unwrap_or_default();
        !self.lost_claims.contains(key) && reaches(ends, claim.position)
    }

    /// The claims that the topic must have at their positions if it is the topic that was read: the one that was found
    /// there before, unless it was compacted since, and the newest.
    pub(super) fn placed_claims(&self, ends: &Ends) -> Vec<Message> {
        let is_there = |claim: &&Message| self.is_on_topic(claim, ends);
        let claims = self.placed.iter().chain(self.claims.last());
        let mut claims: Vec<Message> = claims.filter(is_there).cloned().collect();
        claims.dedup();
        claims
    }

    /// Notes that a claim was found at its position, unless newer claims were read meanwhile.
    pub(super) fn found_in_place(&mut self, claim: &Message) {
        if self.claims.last() == Some(claim) && !self.is_to_be_read_again {
            self.placed = Some(claim.clone());
        }
    }

    pub(super) fn on_topic<'a>(
        &self,
        subjects: impl Iterator<Item = &'a String>,
        ends: &Ends,
    ) -> OnTopic {
        let mut shown = OnTopic::default();
        for subject in subjects {
            let Some(HeldKey { wrapped, at }) = self.keys.get(subject.as_str()) else {
                continue;
            };
            let is_there = at.is_some_and(|at| reaches(ends, at));
            match wrapped {
                Some(wrapped) if is_there => {
                    shown.wrapped.insert(subject.clone(), wrapped.to_string());
                }
                Some(_) => {}
                None => {
                    shown.erased.insert(subject.clone());
                    if is_there {
                        shown.tombstones.insert(subject.clone());
                    }
                }
            }
        }
        shown
    }

    pub(super) fn known<'a>(&self, subjects: impl Iterator<Item = &'a String>) -> Known {
        let mut known = Known::default();
        for subject in subjects {
            match self.keys.get(subject.as_str()).map(|key| &key.wrapped) {
                Some(Some(wrapped)) => {
                    known.wrapped.insert(subject.clone(), wrapped.to_string());
                }
                Some(None) => {
                    known.erased.insert(subject.clone());
                }
                None => {}
            }
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_topic_does_not_show_is_not_concluded() {
        let mut held = Held::default();
        let subjects = ["1".to_owned()];
        assert_eq!(held.known(subjects.iter()), Known::default());
        let at = Position {
            partition: 0,
            offset: 5,
        };
        held.shows("1", None, at);
        assert!(held.known(subjects.iter()).erased.contains("1"));
        held.shows("1", Some("wrapped".into()), at);
        assert_eq!(held.known(subjects.iter()).wrapped["1"], "wrapped");
    }

    #[test]
    fn what_a_record_that_does_not_count_outlives_is_lost_until_it_is_published_again() {
        let mut held = Held::default();
        held.shows("forged", Some("1".into()), at(0, 1));
        held.shows("revived", None, at(0, 2));
        held.count_as_lost("forged");
        held.count_as_lost("revived");
        held.count_as_lost("unheard");
        let subjects = ["forged", "revived"].map(str::to_owned);
        let ends = Ends::from([(0, (0, 6))]);
        let lost = held.on_topic(subjects.iter(), &ends);
        assert!(
            lost.wrapped.is_empty() && lost.tombstones.is_empty(),
            "{lost:?}"
        );
        assert!(lost.erased.contains("revived"), "a tombstone is final");
        assert_eq!(held.known(subjects.iter()).wrapped["forged"], "1");
        held.shows("forged", Some("1".into()), at(0, 4));
        held.shows("revived", None, at(0, 5));
        let there = held.on_topic(subjects.iter(), &ends);
        assert_eq!(there.wrapped["forged"], "1");
        assert!(there.tombstones.contains("revived"));
    }

    fn at(partition: i32, offset: i64) -> Position {
        Position { partition, offset }
    }

    fn topic(identity: &str, ends: &[(i64, i64)]) -> TopicState {
        TopicState {
            identity: Some(identity.to_owned()),
            ends: (0..).zip(ends.iter().copied()).collect(),
        }
    }

    fn claim(at: Position) -> Message {
        Message {
            topic: "keys".to_owned(),
            position: at,
            key: Some("!claim/accounts".to_owned()),
            headers: Vec::new(),
            payload: Some(b"{}".to_vec()),
            published_ms: None,
        }
    }

    #[test]
    fn a_topic_that_was_made_anew_is_told_and_has_lost_its_claim_until_it_shows_it_again() {
        let key = "!claim/accounts";
        let has_claim =
            |held: &Held, state: &TopicState| held.claim_on_topic(key, &state.ends).is_some();
        let whole = topic("a", &[(0, 5), (0, 1)]);
        let (shorter, another) = (topic("a", &[(0, 2), (0, 1)]), topic("b", &[(0, 9), (0, 9)]));
        for made_anew in [&shorter, &another] {
            let mut held = Held {
                claims: vec![claim(at(0, 1))],
                next: [(0, 5), (1, 1)].into(),
                ..Held::default()
            };
            let read = held.next.clone();
            assert!(!held.compare(&read, &whole) && has_claim(&held, &whole));
            assert!(held.replaced.is_empty());
            assert!(held.compare(&read, made_anew));
            assert!(!has_claim(&held, made_anew), "it was another topic's");
            assert!(held.placed_claims(&made_anew.ends).is_empty());
            assert!(!held.compare(&read, made_anew), "it is told once");
            held.read_again();
            let told: Vec<i32> = held.replaced.keys().copied().collect();
            assert_eq!(told, [0, 1]);
        }
        // The end was queried before the last records were read.
        let mut held = Held {
            next: [(0, 5), (1, 1)].into(),
            ..Held::default()
        };
        assert!(!held.compare(&[(0, 2), (1, 1)].into(), &shorter));
        // A claim that retention removed is gone as well.
        let held = Held {
            claims: vec![claim(at(0, 1))],
            ..Held::default()
        };
        assert!(!has_claim(&held, &topic("a", &[(2, 5)])));
    }

    #[test]
    fn a_record_before_what_the_same_reader_has_read_tells_that_the_topic_was_made_anew() {
        let mut held = Held {
            next: [(0, 5), (1, 1)].into(),
            ..Held::default()
        };
        assert!(!held.goes_back(at(0, 5), 5));
        assert!(
            !held.goes_back(at(0, 9), 5),
            "what lies between was compacted"
        );
        assert!(held.goes_back(at(0, 0), 5));
        assert_eq!(held.replaced.keys().copied().collect::<Vec<_>>(), [0, 1]);
        assert!(!held.goes_back(at(0, 1), 5), "it is told once");
    }

    #[test]
    fn a_claim_that_was_in_its_place_is_looked_for_until_a_newer_one_is_in_its_own() {
        let ends = Ends::from([(0, (0, 9))]);
        let (first, second) = (claim(at(0, 1)), claim(at(0, 7)));
        let mut held = Held {
            placed: Some(first.clone()),
            claims: vec![first.clone(), second.clone()],
            ..Held::default()
        };
        assert_eq!(held.placed_claims(&ends), [first.clone(), second.clone()]);
        held.found_in_place(&first);
        assert_eq!(held.placed_claims(&ends), [first, second.clone()]);
        held.found_in_place(&second);
        assert_eq!(held.placed_claims(&ends), std::slice::from_ref(&second));
        held.replace("it was made anew");
        held.found_in_place(&second);
        assert!(held.placed_claims(&ends).is_empty());
    }

    #[test]
    fn what_was_removed_from_the_topic_counts_as_lost_and_nothing_else() {
        let mut held = Held::default();
        held.shows("early", Some("1".into()), at(0, 1));
        held.shows("late", Some("2".into()), at(0, 4));
        held.shows("other", Some("3".into()), at(1, 0));
        held.shows("gone", None, at(0, 2));
        held.next = [(0, 5), (1, 1)].into();
        let all = ["early", "late", "other", "gone", "unheard"].map(str::to_owned);
        let mut told = |state: &TopicState| {
            held.compare(&held.next.clone(), state);
            let shown = held.on_topic(all.iter(), &state.ends);
            assert!(shown.erased.contains("gone"), "a tombstone is final");
            let mut there: Vec<String> =
                shown.wrapped.into_keys().chain(shown.tombstones).collect();
            there.sort();
            (there.join(" "), held.next.clone())
        };
        let read = Offsets::from([(0, 5), (1, 1)]);
        assert_eq!(
            told(&topic("a", &[(0, 5), (0, 1)])),
            ("early gone late other".to_owned(), read.clone())
        );
        assert_eq!(
            told(&topic("a", &[(2, 5), (0, 1)])),
            ("gone late other".to_owned(), read.clone())
        );
        assert_eq!(
            told(&topic("a", &[(5, 5), (0, 1)])),
            ("other".to_owned(), read)
        );
        // One partition ends before what was read of it: all of the topic is read again, whatever became of the others.
        assert_eq!(
            told(&topic("a", &[(0, 2), (0, 100)])),
            (String::new(), Offsets::new())
        );
        let mut held = Held::default();
        held.shows("other", Some("3".into()), at(1, 0));
        held.next = [(0, 5), (1, 1)].into();
        let mut told = |state: &TopicState| {
            held.compare(&held.next.clone(), state);
            let shown = held.on_topic(all.iter(), &state.ends);
            (shown.wrapped.len(), held.next.clone())
        };
        // Made anew, and grown past what was read of the old one.
        let (one, another) = (
            topic("a", &[(0, 5), (0, 1)]),
            topic("b", &[(0, 100), (0, 100)]),
        );
        assert_eq!(told(&one), (1, [(0, 5), (1, 1)].into()));
        assert_eq!(told(&another), (0, Offsets::new()));
    }
}
