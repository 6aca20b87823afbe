//! How far the topic of keys was read: the progress that the store remembers.

use std::collections::{BTreeMap, HashSet};

use tandem_model::message::Message;

use super::Held;
use crate::data_keys::keys_read::Place;

/// The progress to remember.
#[derive(Debug)]
pub(in crate::data_keys) struct Progress {
    pub(in crate::data_keys) identity: Option<String>,
    /// The last record that was read in each partition.
    pub(in crate::data_keys) last: BTreeMap<i32, Place>,
    /// The claims up to those records, without those that the topic has lost.
    pub(in crate::data_keys) claims: Vec<Message>,
    /// Subjects for which a tombstone or a refused record was read since the last call of [`Held::progress`].
    pub(in crate::data_keys) to_be_proven: HashSet<Box<str>>,
}

impl Held {
    /// Notes the last record that was read in each partition.
    pub(in crate::data_keys) fn has_read(&mut self, last: BTreeMap<i32, Message>) {
        if self.is_to_be_read_again || !self.is_remembered {
            return;
        }
        for (partition, message) in last {
            // Reading may have been restarted meanwhile.
            let next = self.next.get(&partition);
            if next.is_some_and(|next| message.position.offset < *next) {
                self.last.insert(partition, message);
            }
        }
    }

    /// Notes a subject that the store must know about before the progress is remembered.
    pub(super) fn must_be_proven(&mut self, subject: &str) {
        if self.is_remembered {
            self.to_be_proven.insert(subject.into());
        }
    }

    /// How far the topic was read. `None` while that is not meaningful: records are still being judged, or the topic
    /// is not the one that was read.
    pub(in crate::data_keys) fn progress(&mut self) -> Option<Progress> {
        let is_judged = self.unjudged.is_empty() && !self.is_looking && self.judging == 0;
        let is_read_on = !self.is_to_be_read_again && !self.is_behind_itself;
        let is_whole = self.older.is_none() && self.replaced.is_empty();
        if !(is_judged && is_read_on && is_whole) {
            return None;
        }
        let mut last = self.last_before.clone();
        let read = self.last.iter();
        last.extend(read.map(|(partition, message)| (*partition, Place::of(message))));
        if last.is_empty() {
            return None;
        }
        let is_before = |claim: &&Message| {
            let is_lost = |key: &str| self.lost_claims.contains(key);
            let last = last.get(&claim.position.partition);
            last.is_some_and(|last| claim.position.offset <= last.offset())
                && !claim.key.as_deref().is_some_and(is_lost)
        };
        let claims = self.claims.iter().filter(is_before).cloned().collect();
        Some(Progress {
            identity: self.identity.clone(),
            claims,
            last,
            to_be_proven: std::mem::take(&mut self.to_be_proven),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_model::message::Position;

    use super::*;

    fn message(key: &str, offset: i64, payload: Option<&[u8]>) -> Message {
        Message {
            topic: "keys".to_owned(),
            position: Position {
                partition: 0,
                offset,
            },
            key: Some(key.to_owned()),
            headers: Vec::new(),
            payload: payload.map(<[u8]>::to_vec),
            published_ms: None,
        }
    }

    #[test]
    fn what_is_remembered_ends_with_what_was_read_and_judged() {
        let mut held = Held {
            is_remembered: true,
            claims: vec![
                message("!claim/accounts", 1, None),
                message("!claim/accounts", 8, None),
            ],
            next: [(0, 6)].into(),
            ..Held::default()
        };
        assert!(held.progress().is_none(), "nothing was read");
        held.take("keys", "erased", &message("erased", 4, None));
        held.has_read([(0, message("1", 5, Some(b"{}")))].into());
        // This record was read before the restart.
        held.has_read([(0, message("1", 9, Some(b"{}")))].into());
        held.judging = 1;
        assert!(held.progress().is_none());
        held.judging = 0;
        let progress = held.progress().unwrap();
        assert_eq!(progress.last[&0].offset(), 5);
        assert_eq!(progress.claims, [message("!claim/accounts", 1, None)]);
        assert!(progress.to_be_proven.contains("erased"));
        assert!(held.progress().unwrap().to_be_proven.is_empty());
        held.read_again();
        assert!(held.progress().is_none());
    }
}
