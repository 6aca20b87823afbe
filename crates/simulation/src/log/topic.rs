//! Topics with the properties of Kafka: partitions whose offsets have holes, open and aborted transactions, retention,
//! compaction.

use std::collections::{BTreeMap, HashMap};

use tandem_model::message::{Message, Position};

/// The entry at an offset.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A record that readers can see.
    Record(Message),
    /// A record of an open transaction. Readers see neither it nor anything after it.
    Open(u64, Message),
    /// A hole: the marker of a transaction, a record of an aborted transaction, or a record that compaction removed.
    Hole,
}

/// A partition.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    entries: BTreeMap<i64, Entry>,
    low: i64,
    high: i64,
    /// Until when its leader is unavailable, in nanoseconds since the world began.
    pub away_until: u64,
}

impl Partition {
    /// The first offset that is kept.
    #[must_use]
    pub fn low(&self) -> i64 {
        self.low
    }

    /// The offset after the last entry.
    #[must_use]
    pub fn high(&self) -> i64 {
        self.high
    }

    /// The offset after the last entry that readers can see. Open transactions hold it back.
    #[must_use]
    pub fn stable(&self) -> i64 {
        let is_open = |entry: &Entry| matches!(entry, Entry::Open(..));
        let open = self.entries.iter().find(|(_, entry)| is_open(entry));
        open.map_or(self.high, |(offset, _)| *offset)
    }

    /// Appends an entry. `None` is a hole.
    pub fn append(&mut self, partition: i32, transaction: Option<u64>, record: Option<Message>) {
        let offset = self.high;
        let entry = record.map(|mut message| {
            message.position = Position { partition, offset };
            match transaction {
                Some(transaction) => Entry::Open(transaction, message),
                None => Entry::Record(message),
            }
        });
        self.entries.insert(offset, entry.unwrap_or(Entry::Hole));
        self.high += 1;
    }

    /// Ends a transaction. Its records become visible, or become holes, and a marker follows. Returns the records that
    /// become visible.
    pub fn end_transaction(&mut self, partition: i32, ended: u64, commits: bool) -> Vec<Message> {
        let mut seen = Vec::new();
        for entry in self.entries.values_mut() {
            let Entry::Open(transaction, message) = entry else {
                continue;
            };
            if *transaction != ended {
                continue;
            }
            *entry = if commits {
                seen.push(message.clone());
                Entry::Record(message.clone())
            } else {
                Entry::Hole
            };
        }
        self.append(partition, None, None);
        seen
    }

    /// At most `limit` records from an offset on, and the next offset to read.
    #[must_use]
    pub fn read(&self, from: i64, limit: usize) -> (Vec<Message>, i64) {
        let stable = self.stable();
        let mut next = from.max(self.low);
        let mut found = Vec::new();
        for (offset, entry) in self.entries.range(next..stable.max(next)) {
            if found.len() >= limit {
                return (found, next);
            }
            if let Entry::Record(message) = entry {
                found.push(message.clone());
            }
            next = offset + 1;
        }
        (found, next.max(stable))
    }

    /// Whether the partition has an open transaction.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.stable() < self.high
    }

    /// Removes the oldest entries, up to an offset.
    pub fn retain_from(&mut self, low: i64) {
        self.low = low.clamp(self.low, self.stable());
        self.entries = self.entries.split_off(&self.low);
    }

    /// Compacts the partition: all records but the newest of each key become holes. The newest `spared` entries are
    /// ignored, because they are in the segment that is still written to.
    pub fn compact(&mut self, spared: i64) {
        let end = self.stable() - spared;
        let mut newest: HashMap<String, i64> = HashMap::new();
        for (offset, entry) in self.entries.range(..end.max(0)) {
            if let Entry::Record(Message { key: Some(key), .. }) = entry {
                newest.insert(key.clone(), *offset);
            }
        }
        for (offset, entry) in self.entries.range_mut(..end.max(0)) {
            let is_older = |key: &String| newest.get(key).is_some_and(|newest| newest > offset);
            if matches!(entry, Entry::Record(Message { key: Some(key), .. }) if is_older(key)) {
                *entry = Entry::Hole;
            }
        }
    }
}

/// A topic.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Distinguishes the topic from others with the same name.
    pub identity: u64,
    /// Whether the topic is compacted.
    pub is_compacted: bool,
    /// Its partitions.
    pub partitions: Vec<Partition>,
}

impl Topic {
    /// Creates a topic with this number of empty partitions.
    #[must_use]
    pub fn new(identity: u64, is_compacted: bool, partitions: usize) -> Self {
        Self {
            identity,
            is_compacted,
            partitions: vec![Partition::default(); partitions],
        }
    }

    /// The partition for records with this key. It may change when partitions are added.
    #[must_use]
    pub fn partition_of(&self, key: &str) -> usize {
        // FNV-1a, 64 bits.
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let count = self.partitions.len().max(1) as u64;
        usize::try_from((hash ^ (hash >> 32)) % count).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(key: &str) -> Message {
        Message {
            topic: "t".to_owned(),
            position: Position {
                partition: 0,
                offset: 0,
            },
            key: Some(key.to_owned()),
            headers: Vec::new(),
            payload: None,
            published_ms: None,
        }
    }

    fn offsets(partition: &Partition) -> Vec<i64> {
        let (found, _) = partition.read(0, 100);
        found.iter().map(|it| it.position.offset).collect()
    }

    #[test]
    fn an_open_transaction_hides_what_comes_behind_it_and_an_aborted_one_leaves_holes() {
        let mut partition = Partition::default();
        partition.append(0, None, Some(message("a")));
        partition.append(0, Some(7), Some(message("b")));
        partition.append(0, None, Some(message("c")));
        assert_eq!((partition.stable(), partition.high()), (1, 3));
        assert_eq!(offsets(&partition), [0]);
        assert!(partition.end_transaction(0, 7, false).is_empty());
        assert_eq!(offsets(&partition), [0, 2]);
        assert_eq!(partition.read(0, 100).1, 4);
        assert_eq!(partition.read(0, 1), (vec![message("a")], 1));
    }

    #[test]
    fn compaction_keeps_the_newest_of_each_key() {
        let mut partition = Partition::default();
        for key in ["a", "b", "a", "b", "a"] {
            partition.append(0, None, Some(message(key)));
        }
        partition.compact(1);
        assert_eq!(offsets(&partition), [2, 3, 4]);
        partition.retain_from(4);
        assert_eq!((partition.low(), offsets(&partition)), (4, vec![4]));
    }
}
