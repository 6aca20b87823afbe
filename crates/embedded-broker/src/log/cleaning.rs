//! Removes what has expired: records past their retention, batches before a partition's first offset, deleted topics,
//! and producers that have been silent for long. It uses small changes, so that nobody waits long for one.

use redb::{Database, ReadableDatabase, ReadableTable};

use super::{
    Log,
    committer::Unavailable,
    failure::Failure,
    tables::{BATCHES, DOOMED, PRODUCERS, row},
    topics::{Partition, Topic},
};
use crate::{log::producers::Producer, record_batch::Header};

/// Most batches that one change removes.
const AT_ONCE: usize = 500;
/// How long a silent producer is remembered, in milliseconds. The same as in Kafka (`producer.id.expiration.ms`).
const PRODUCER_KEPT: i64 = 24 * 60 * 60 * 1_000;
/// Most producers that are remembered in all partitions together. Above that, those that have been silent longest are
/// forgotten.
const MOST_PRODUCERS: usize = 100_000;

impl Log {
    /// Does everything that is due at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// If the file cannot be read or written. The next call does the rest.
    pub(crate) async fn clean(&self, now: i64) -> Result<(), Unavailable> {
        for partition in self.read(doomed).await? {
            while !self
                .change(move |changes| changes.remove_doomed(partition, AT_ONCE))
                .await?
            {}
        }
        for topic in self.topics().all() {
            for partition in &topic.partitions {
                self.expire(topic, partition, now).await?;
                self.trim(partition).await?;
                if topic.settings.is_compacted {
                    self.compact(topic, partition, now).await?;
                }
            }
        }
        self.forget_producers(now).await
    }

    /// Moves the first offset past the expired records.
    async fn expire(
        &self,
        topic: &Topic,
        partition: &Partition,
        now: i64,
    ) -> Result<(), Unavailable> {
        let Some(retention) = topic.settings.retention else {
            return Ok(());
        };
        let oldest = now.saturating_sub(retention);
        let ends = partition.ends();
        let start = self
            .read(|database| first_younger(database, partition.number, ends.start, oldest))
            .await?
            .unwrap_or(ends.end);
        if start > ends.start {
            let number = partition.number;
            self.change(move |changes| changes.set_start(number, start))
                .await?;
        }
        Ok(())
    }

    /// Removes the batches before the first offset.
    async fn trim(&self, partition: &Partition) -> Result<(), Unavailable> {
        let (number, start) = (partition.number, partition.ends().start);
        let is_needed = self
            .read(|database| has_before(database, number, start))
            .await?;
        if is_needed {
            while !self
                .change(move |changes| changes.trim(number, AT_ONCE))
                .await?
            {}
        }
        Ok(())
    }

    async fn forget_producers(&self, now: i64) -> Result<(), Unavailable> {
        let mut known = self.read(producers).await?;
        known.sort_unstable();
        let too_many = known.len().saturating_sub(MOST_PRODUCERS);
        let silent: Vec<Wrote> = known
            .into_iter()
            .enumerate()
            .filter(|(at, (wrote_at, _))| {
                *at < too_many || *wrote_at < now.saturating_sub(PRODUCER_KEPT)
            })
            .map(|(_, silent)| silent)
            .collect();
        for some in silent.chunks(AT_ONCE) {
            let some = some.to_vec();
            self.change(move |changes| {
                changes.forget_producers(&some);
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

fn doomed(database: &Database) -> Result<Vec<u32>, Failure> {
    let table = database.begin_read()?.open_table(DOOMED)?;
    let numbers = table.iter()?.map(|entry| Ok(entry?.0.value()));
    numbers.collect()
}

/// The offset of the first batch with a record of this time or later; `None` if there is none.
fn first_younger(
    database: &Database,
    partition: u32,
    start: i64,
    oldest: i64,
) -> Result<Option<i64>, Failure> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    for entry in table.range((partition, i64::MIN)..=(partition, i64::MAX))? {
        let (key, row) = entry?;
        let header = Header::of(row::batch(row.value()));
        let is_younger = header.is_some_and(|header| {
            header.last_offset() >= start && header.max_timestamp() >= oldest
        });
        if is_younger {
            return Ok(Some(key.value().1));
        }
    }
    Ok(None)
}

fn has_before(database: &Database, partition: u32, start: i64) -> Result<bool, Failure> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    let first = table
        .range((partition, i64::MIN)..(partition, start))?
        .next();
    match first {
        Some(entry) => Ok(Header::of(row::batch(entry?.1.value()))
            .is_none_or(|header| header.last_offset() < start)),
        None => Ok(false),
    }
}

/// When a producer last wrote, in milliseconds since 1970, with the partition and the producer's id.
type Wrote = (i64, (u32, i64));

/// When each producer last wrote to a partition.
fn producers(database: &Database) -> Result<Vec<Wrote>, Failure> {
    let table = database.begin_read()?.open_table(PRODUCERS)?;
    let mut found = Vec::new();
    for entry in table.iter()? {
        let (key, row) = entry?;
        let wrote_at = Producer::from_row(row.value()).map_or(0, |producer| producer.wrote_at);
        found.push((wrote_at, key.value()));
    }
    Ok(found)
}
