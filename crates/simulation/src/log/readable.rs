//! Since when the keys of a compacted topic can be read. If a foreign record follows one of ours with the same key,
//! compaction keeps only the foreign one.

use std::collections::{BTreeMap, BTreeSet};

use tandem_model::message::Message;

use super::{Cluster, State, foreign::is_foreign, topic::Topic};

/// The keys with a record of ours, in the partitions that have a leader at `led_at`, or in all partitions if it is
/// `None`.
fn kept(topic: &Topic, led_at: Option<u64>) -> BTreeSet<String> {
    let partitions = topic.partitions.iter();
    partitions
        .filter(|it| led_at.is_none_or(|now| it.away_until <= now))
        .flat_map(|it| it.read(0, usize::MAX).0)
        .filter(|it| !is_foreign(&it.headers))
        .filter_map(|it| it.key)
        .collect()
}

impl Cluster {
    /// For each key of a compacted topic, since when a new reader can read a record of ours, in nanoseconds since the
    /// world began.
    #[must_use]
    pub fn readable(&self) -> BTreeMap<String, u64> {
        self.state().readable.clone()
    }

    pub(super) fn note_readable(&self) {
        let now = self.world().elapsed();
        let mut state = self.state();
        let State {
            topics, readable, ..
        } = &mut *state;
        for topic in topics.values().filter(|topic| topic.is_compacted) {
            for key in kept(topic, Some(now)) {
                readable.entry(key).or_insert(now);
            }
        }
    }

    /// Compacts a topic, except for the `spared` newest entries of each partition.
    pub fn compact(&self, topic: &str, spared: i64) {
        let mut state = self.state();
        let State {
            topics, readable, ..
        } = &mut *state;
        let Some(found) = topics.get_mut(topic) else {
            return;
        };
        let before = kept(found, None);
        for partition in &mut found.partitions {
            partition.compact(spared);
        }
        let after = kept(found, None);
        for lost in before.difference(&after) {
            readable.remove(lost);
        }
        drop(state);
        self.changed(topic);
    }

    /// All records of a topic that a new reader can read.
    #[must_use]
    pub fn records(&self, topic: &str) -> Vec<Message> {
        let state = self.state();
        let partitions = state.topics.get(topic).into_iter();
        partitions
            .flat_map(|topic| &topic.partitions)
            .flat_map(|partition| partition.read(0, usize::MAX).0)
            .collect()
    }
}
