//! The waiting events in memory: whose key is missing, since when, and which ones the log has warned of.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry};

use chrono::{DateTime, TimeDelta, Utc};
use tandem_model::message::Position;

/// How long an event has waited when the log warns of it.
const LONG: TimeDelta = TimeDelta::seconds(10);

/// The waiting events, without the messages.
#[derive(Debug, Default)]
pub(super) struct Waits {
    pub(super) waits: BTreeMap<(String, Position), Wait>,
    /// The number of waiting events of each aggregate.
    pub(super) keys: HashMap<String, usize>,
    /// The events that the log has warned of.
    pub(super) told: BTreeSet<(String, Position)>,
}

impl Waits {
    pub(super) fn add(&mut self, place: (String, Position), wait: Wait) {
        let key = wait.key.clone();
        if let Entry::Vacant(vacant) = self.waits.entry(place) {
            vacant.insert(wait);
            *self.keys.entry(key).or_default() += 1;
        }
    }

    /// The events that have waited long by now and were not returned before.
    pub(super) fn long(&mut self, now: DateTime<Utc>) -> Vec<((String, Position), Wait)> {
        self.told.retain(|place| self.waits.contains_key(place));
        let long: Vec<_> = self
            .waits
            .iter()
            .filter(|(place, wait)| {
                now.signed_duration_since(wait.since) >= LONG && !self.told.contains(*place)
            })
            .map(|(place, wait)| (place.clone(), wait.clone()))
            .collect();
        self.told
            .extend(long.iter().map(|(place, _)| place.clone()));
        long
    }

    pub(super) fn remove(&mut self, place: &(String, Position)) {
        let Some(wait) = self.waits.remove(place) else {
            return;
        };
        if let Some(count) = self.keys.get_mut(&wait.key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&wait.key);
            }
        }
    }
}

/// The subject of the missing key, the aggregate, the time since when, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    pub(super) subject: String,
    pub(super) key: String,
    pub(super) since: DateTime<Utc>,
    pub(super) reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_warned_of_once_and_only_when_it_has_waited_long() {
        let begun = DateTime::UNIX_EPOCH;
        let place = |offset| {
            let partition = 0;
            ("keys".to_owned(), Position { partition, offset })
        };
        let wait = |seconds| Wait {
            subject: "1".to_owned(),
            key: "1".to_owned(),
            since: begun + TimeDelta::seconds(seconds),
            reason: "the key has not come".to_owned(),
        };
        let mut waits = Waits::default();
        waits.add(place(0), wait(0));
        waits.add(place(1), wait(5));
        // An event that waits only a moment causes no warning.
        waits.add(place(2), wait(0));
        waits.remove(&place(2));
        let almost = begun + LONG - TimeDelta::milliseconds(1);
        assert_eq!(waits.long(almost), []);
        assert_eq!(waits.long(begun + LONG), [(place(0), wait(0))]);
        assert_eq!(waits.long(begun + LONG), []);
        let later = begun + LONG + TimeDelta::seconds(5);
        assert_eq!(waits.long(later), [(place(1), wait(5))]);
        // An event that is added again starts to wait again.
        waits.remove(&place(0));
        assert_eq!(waits.long(later), []);
        waits.add(place(0), wait(5));
        assert_eq!(waits.long(later), [(place(0), wait(5))]);
    }
}
