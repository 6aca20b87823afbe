//! The changes that are possible in the log, within the one transaction of a group commit. No change is visible before
//! it is durable.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use redb::{ReadableTable, Table, WriteTransaction};
use uuid::Uuid;

use super::{
    failure::Failure,
    producers::{Producer, SequenceCheck},
    settings::TopicSettings,
    state::State,
    tables::{
        self, BATCHES, CLEANED, DOOMED, NEXT_PARTITION, NEXT_PRODUCER, NUMBERS, OFFSETS, PRODUCERS,
        STARTS, TOPICS, row,
    },
    topics::{Ends, Partition, Topic, Topics},
};
use crate::record_batch::{Batch, Header};

/// Why a batch was not appended, although the file is writable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its topic was deleted.
    NoPartition,
    /// An earlier batch of the same producer is missing.
    OutOfOrder,
    /// A newer instance of the producer has written to this partition.
    Fenced,
}

/// The position of an appended batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// The offset of its first record.
    pub(crate) offset: i64,
    /// The partition's first offset.
    pub(crate) start: i64,
}

/// The committed offset of a group for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

type Batches<'t> = Table<'t, (u32, i64), &'static [u8]>;

/// A transaction, with its pending effect on the state in memory.
pub(crate) struct Changes<'t> {
    transaction: &'t WriteTransaction,
    state: &'t State,
    batches: Option<Batches<'t>>,
    ends: HashMap<u32, Ends>,
    producers: HashMap<(u32, i64), Option<Producer>>,
    topics: Option<Topics>,
    made: HashMap<u32, Arc<Partition>>,
    gone: HashSet<u32>,
}

impl<'t> Changes<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction, state: &'t State) -> Self {
        Self {
            transaction,
            state,
            batches: None,
            ends: HashMap::new(),
            producers: HashMap::new(),
            topics: None,
            made: HashMap::new(),
            gone: HashSet::new(),
        }
    }

    /// Writes the collected changes. Returns the effect on the state in memory, to be applied after the commit.
    pub(super) fn finish(self) -> Result<Effect, Failure> {
        drop(self.batches);
        if !self.producers.is_empty() {
            let mut table = self.transaction.open_table(PRODUCERS)?;
            for (key, producer) in &self.producers {
                match producer {
                    Some(producer) => drop(table.insert(key, producer.to_row().as_slice())?),
                    None => drop(table.remove(key)?),
                }
            }
        }
        Ok(Effect {
            ends: self.ends,
            producers: self.producers,
            topics: self.topics,
            made: self.made,
            gone: self.gone,
        })
    }

    fn batches(&mut self) -> Result<&mut Batches<'t>, Failure> {
        if self.batches.is_none() {
            self.batches = Some(self.transaction.open_table(BATCHES)?);
        }
        self.batches
            .as_mut()
            .ok_or_else(|| Failure::Corrupted("a table that was opened is not there".to_owned()))
    }

    /// The ends of a partition after the changes so far; `None` if it no longer exists.
    fn ends(&self, partition: u32) -> Option<Ends> {
        if self.gone.contains(&partition) {
            return None;
        }
        if let Some(ends) = self.ends.get(&partition) {
            return Some(*ends);
        }
        let made = || self.made.get(&partition);
        let found = self.state.partitions.get(&partition).or_else(made)?;
        Some(found.ends())
    }

    fn topics(&mut self) -> &mut Topics {
        self.topics
            .get_or_insert_with(|| self.state.topics.as_ref().clone())
    }

    /// The topic with this name after the changes so far.
    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let topics = self.topics.as_ref().unwrap_or(&self.state.topics);
        topics.named(name).cloned()
    }

    /// The number of partitions after the changes so far.
    pub(crate) fn partitions(&self) -> usize {
        let topics = self.topics.as_ref().unwrap_or(&self.state.topics);
        topics.partitions()
    }

    /// Appends a batch, unless it was appended before. `now` is in milliseconds since 1970.
    pub(crate) fn append(
        &mut self,
        partition: u32,
        batch: &Batch,
        now: i64,
    ) -> Result<Result<Appended, Refused>, Failure> {
        let Some(mut ends) = self.ends(partition) else {
            return Ok(Err(Refused::NoPartition));
        };
        let (offset, start) = (ends.end, ends.start);
        if let Some(sequence) = batch.sequence {
            let key = (partition, sequence.producer);
            let known = match self.producers.get(&key) {
                Some(staged) => staged.as_ref(),
                None => self.state.producers.get(&key),
            };
            match Producer::check(known, sequence) {
                SequenceCheck::Append => {}
                SequenceCheck::Duplicate(offset) => return Ok(Ok(Appended { offset, start })),
                SequenceCheck::OutOfOrder => return Ok(Err(Refused::OutOfOrder)),
                SequenceCheck::Fenced => return Ok(Err(Refused::Fenced)),
            }
            let after = Producer::after(known, sequence, offset, now);
            self.producers.insert(key, Some(after));
        }
        ends.newest = ends.newest.max(batch.newest);
        {
            let length = row::PREFIX + batch.len();
            let mut row = self
                .batches()?
                .insert_reserve((partition, offset), length)?;
            let (prefix, room) = row.as_mut().split_at_mut(row::PREFIX);
            row::write_prefix(ends.newest, 0, prefix);
            batch.write(offset, room);
        }
        ends.end += i64::from(batch.offsets);
        ends.written += batch.len() as u64;
        self.ends.insert(partition, ends);
        Ok(Ok(Appended { offset, start }))
    }

    /// Creates a topic, which must not exist yet.
    #[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: usize,
        settings: TopicSettings,
    ) -> Result<Arc<Topic>, Failure> {
        let topic = Topic {
            name: name.into(),
            id: Uuid::new_v4(),
            settings,
            partitions: self.new_partitions(partitions)?,
        };
        self.put_topic(topic)
    }

    /// Adds partitions to a topic.
    pub(crate) fn add_partitions(&mut self, topic: &Topic, more: usize) -> Result<(), Failure> {
        let mut topic = topic.clone();
        topic.partitions.extend(self.new_partitions(more)?);
        self.put_topic(topic).map(drop)
    }

    /// Replaces the settings of a topic.
    pub(crate) fn set_settings(
        &mut self,
        topic: &Topic,
        settings: TopicSettings,
    ) -> Result<(), Failure> {
        let mut topic = topic.clone();
        topic.settings = settings;
        self.put_topic(topic).map(drop)
    }

    fn new_partitions(&mut self, count: usize) -> Result<Vec<Arc<Partition>>, Failure> {
        let mut numbers = self.transaction.open_table(NUMBERS)?;
        let next = numbers.get(NEXT_PARTITION)?.map_or(0, |row| row.value());
        let partitions: Vec<_> = (next..)
            .take(count)
            .map(|number| {
                let number = u32::try_from(number).map_err(|_| {
                    Failure::Corrupted("the numbers of partitions are used up".to_owned())
                })?;
                Ok(Arc::new(Partition::new(number, Ends::EMPTY)))
            })
            .collect::<Result<_, Failure>>()?;
        numbers.insert(NEXT_PARTITION, next + count as i64)?;
        for partition in &partitions {
            self.made.insert(partition.number, Arc::clone(partition));
        }
        Ok(partitions)
    }

    fn put_topic(&mut self, topic: Topic) -> Result<Arc<Topic>, Failure> {
        let numbers: Vec<u32> = topic.partitions.iter().map(|one| one.number).collect();
        let given: Vec<_> = topic.settings.given().collect();
        self.transaction
            .open_table(TOPICS)?
            .insert(&*topic.name, (topic.id.as_u128(), numbers, given))?;
        let topics = self.topics();
        topics.put(topic.clone());
        Ok(Arc::new(topic))
    }

    /// Deletes a topic and the committed offsets for it. [`remove_doomed`](Self::remove_doomed) removes its batches
    /// later.
    pub(crate) fn delete_topic(&mut self, topic: &Topic) -> Result<(), Failure> {
        self.transaction.open_table(TOPICS)?.remove(&*topic.name)?;
        let mut doomed = self.transaction.open_table(DOOMED)?;
        for partition in &topic.partitions {
            doomed.insert(partition.number, ())?;
            self.gone.insert(partition.number);
        }
        let of_topic = |(_, name, _): (&str, &str, i32)| name == &*topic.name;
        self.transaction
            .open_table(OFFSETS)?
            .retain(|key, _| !of_topic(key))?;
        self.topics().remove(&topic.name);
        Ok(())
    }

    /// Moves the first offset of a partition forward, at most to its end. Returns the new first offset.
    /// [`trim`](Self::trim) removes the records before it later.
    pub(crate) fn set_start(
        &mut self,
        partition: u32,
        offset: i64,
    ) -> Result<Option<i64>, Failure> {
        let Some(mut ends) = self.ends(partition) else {
            return Ok(None);
        };
        let start = offset.clamp(ends.start, ends.end);
        if start > ends.start {
            ends.start = start;
            self.transaction
                .open_table(STARTS)?
                .insert(partition, start)?;
            self.ends.insert(partition, ends);
        }
        Ok(Some(start))
    }

    /// Removes at most `limit` batches that are entirely before the first offset. Returns whether none are left.
    pub(crate) fn trim(&mut self, partition: u32, limit: usize) -> Result<bool, Failure> {
        let Some(ends) = self.ends(partition) else {
            return Ok(true);
        };
        let is_before = |row: &[u8]| {
            Header::of(row::batch(row)).is_none_or(|header| header.last_offset() < ends.start)
        };
        let table = self.batches()?;
        let mut before = Vec::new();
        for entry in table
            .range((partition, i64::MIN)..(partition, ends.start))?
            .take(limit)
        {
            let (key, row) = entry?;
            if !is_before(row.value()) {
                break;
            }
            before.push(key.value());
        }
        for key in &before {
            table.remove(key)?;
        }
        Ok(before.len() < limit)
    }

    /// Removes at most `limit` batches of a partition whose topic was deleted. Returns whether none are left.
    pub(crate) fn remove_doomed(&mut self, partition: u32, limit: usize) -> Result<bool, Failure> {
        let table = self.batches()?;
        let mut keys = Vec::new();
        for entry in table
            .range((partition, i64::MIN)..=(partition, i64::MAX))?
            .take(limit)
        {
            keys.push(entry?.0.value());
        }
        for key in &keys {
            table.remove(key)?;
        }
        if keys.len() == limit {
            return Ok(false);
        }
        self.transaction.open_table(DOOMED)?.remove(partition)?;
        self.transaction.open_table(STARTS)?.remove(partition)?;
        self.transaction.open_table(CLEANED)?.remove(partition)?;
        Ok(true)
    }

    /// Replaces batches by their compacted versions, and removes batches without remaining records (`None`). Batches
    /// that no longer exist are not created again.
    pub(crate) fn replace(
        &mut self,
        partition: u32,
        batches: &[(i64, Option<Vec<u8>>)],
    ) -> Result<(), Failure> {
        if self.ends(partition).is_none() {
            return Ok(());
        }
        let table = self.batches()?;
        for (offset, row) in batches {
            let key = (partition, *offset);
            if table.get(key)?.is_none() {
                continue;
            }
            match row {
                Some(row) => drop(table.insert(key, row.as_slice())?),
                None => drop(table.remove(key)?),
            }
        }
        Ok(())
    }

    /// Records how far a partition is compacted: see [`CLEANED`].
    pub(crate) fn set_cleaned(
        &mut self,
        partition: u32,
        cleaned: (i64, u64, i64),
    ) -> Result<(), Failure> {
        if self.ends(partition).is_some() {
            let mut table = self.transaction.open_table(CLEANED)?;
            table.insert(partition, cleaned)?;
        }
        Ok(())
    }

    /// Forgets producers, each given with its last write in milliseconds since 1970, unless they have written since.
    pub(crate) fn forget_producers(&mut self, silent: &[(i64, (u32, i64))]) {
        for (wrote_at, key) in silent {
            let known = match self.producers.get(key) {
                Some(staged) => staged.as_ref(),
                None => self.state.producers.get(key),
            };
            if known.is_none_or(|known| known.wrote_at == *wrote_at) {
                self.producers.insert(*key, None);
            }
        }
    }

    /// Reserves `count` producer ids. Returns the first.
    pub(crate) fn reserve_producers(&mut self, count: i64) -> Result<i64, Failure> {
        let mut numbers = self.transaction.open_table(NUMBERS)?;
        let first = numbers.get(NEXT_PRODUCER)?.map_or(0, |row| row.value());
        numbers.insert(NEXT_PRODUCER, first + count)?;
        Ok(first)
    }

    /// Stores the committed offsets of a group. `now` is in milliseconds since 1970.
    pub(crate) fn commit_offsets(
        &mut self,
        group: &str,
        offsets: &[CommittedOffset],
        now: i64,
    ) -> Result<(), Failure> {
        let mut table = self.transaction.open_table(OFFSETS)?;
        for one in offsets {
            let key = (group, one.topic.as_str(), one.partition);
            let row: tables::OffsetRow = (one.offset, one.leader_epoch, "", now);
            table.insert(key, (row.0, row.1, one.metadata.as_str(), row.3))?;
        }
        Ok(())
    }

    /// Deletes the committed offsets of a group. Returns whether there were any.
    pub(crate) fn delete_group(&mut self, group: &str) -> Result<bool, Failure> {
        let mut table = self.transaction.open_table(OFFSETS)?;
        let mut keys = Vec::new();
        for entry in table.range((group, "", i32::MIN)..)? {
            let (key, _) = entry?;
            let (of, topic, partition) = key.value();
            if of != group {
                break;
            }
            keys.push((topic.to_owned(), partition));
        }
        for (topic, partition) in &keys {
            table.remove((group, topic.as_str(), *partition))?;
        }
        Ok(!keys.is_empty())
    }
}

/// The effect of a committed transaction on the state in memory.
#[derive(Debug)]
pub(super) struct Effect {
    ends: HashMap<u32, Ends>,
    producers: HashMap<(u32, i64), Option<Producer>>,
    topics: Option<Topics>,
    made: HashMap<u32, Arc<Partition>>,
    gone: HashSet<u32>,
}

impl Effect {
    /// Applies the effect. Returns whether the topics have changed.
    pub(super) fn apply(self, state: &mut State) -> bool {
        state.partitions.extend(self.made);
        for (key, producer) in self.producers {
            match producer {
                Some(producer) => drop(state.producers.insert(key, producer)),
                None => drop(state.producers.remove(&key)),
            }
        }
        for (number, ends) in self.ends {
            if let Some(partition) = state.partitions.get(&number) {
                partition.publish(ends);
            }
        }
        let changed = self.topics.is_some();
        if let Some(topics) = self.topics {
            state.topics = Arc::new(topics);
        }
        if !self.gone.is_empty() {
            state
                .producers
                .retain(|(partition, _), _| !self.gone.contains(partition));
        }
        for number in self.gone {
            if let Some(partition) = state.partitions.remove(&number) {
                partition.wake();
            }
        }
        changed
    }
}
