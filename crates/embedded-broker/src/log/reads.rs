//! Reads: batches from an offset on, offsets by time, and committed offsets.

use bytes::{Bytes, BytesMut};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable};

use super::{
    Log,
    changes::CommittedOffset,
    committer::Unavailable,
    failure::Failure,
    tables::{BATCHES, OFFSETS, row},
    topics::{Ends, Partition},
};
use crate::record_batch::{Header, Records};

type Batches = ReadOnlyTable<(u32, i64), &'static [u8]>;

/// Which record to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The first record at this time or later, in milliseconds since 1970.
    From(i64),
    /// The record with the newest timestamp.
    Newest,
}

/// A record that was found by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: i64,
    /// In milliseconds since 1970.
    pub(crate) timestamp: i64,
}

impl Log {
    /// Whole batches, from the one with this offset up to the partition's end. At most `most` bytes, but if
    /// `at_least_one` is set at least one batch. Consumers skip the records before the offset.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) async fn batches(
        &self,
        partition: &Partition,
        from: i64,
        most: usize,
        at_least_one: bool,
    ) -> Result<Bytes, Unavailable> {
        let end = partition.ends().end;
        self.read(|database| batches(database, partition.number, from..end, most, at_least_one))
            .await
    }

    /// Finds a record by time; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) async fn find(
        &self,
        partition: &Partition,
        when: When,
    ) -> Result<Option<Found>, Unavailable> {
        let ends = partition.ends();
        self.read(|database| find(database, partition.number, ends, when))
            .await
    }

    /// The committed offsets of a group.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) async fn committed(&self, group: &str) -> Result<Vec<CommittedOffset>, Unavailable> {
        self.read(|database| committed(database, group)).await
    }

    /// The groups with committed offsets, in the order of their names.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) async fn groups(&self) -> Result<Vec<String>, Unavailable> {
        self.read(groups).await
    }

    /// Reads on the current thread, because the data is mostly in memory and limited in size. A failure of the file is
    /// reported to the writer, which opens it again.
    pub(super) async fn read<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Unavailable> {
        let database = self.database()?;
        let read = work(&database);
        drop(database);
        match read {
            Ok(read) => Ok(read),
            Err(error) => {
                tracing::error!(%error, "the log could not be read");
                drop(self.submit(0, |_| Ok(())).await);
                Err(Unavailable)
            }
        }
    }
}

fn batches(
    database: &Database,
    partition: u32,
    offsets: std::ops::Range<i64>,
    most: usize,
    at_least_one: bool,
) -> Result<Bytes, Failure> {
    if offsets.is_empty() {
        return Ok(Bytes::new());
    }
    let table = database.begin_read()?.open_table(BATCHES)?;
    let first = first_with(&table, partition, offsets.start)?;
    let mut found = BytesMut::new();
    for entry in table.range((partition, first)..(partition, offsets.end))? {
        let (_, row) = entry?;
        let batch = row::batch(row.value());
        let fits = found.len() + batch.len() <= most;
        let is_needed = at_least_one && found.is_empty();
        if !(fits || is_needed) {
            break;
        }
        found.extend_from_slice(batch);
        if !fits {
            break;
        }
    }
    Ok(found.freeze())
}

/// The base offset from which a scan finds the batch with this offset.
fn first_with(table: &Batches, partition: u32, offset: i64) -> Result<i64, Failure> {
    let before = table
        .range((partition, i64::MIN)..=(partition, offset))?
        .next_back();
    let Some(before) = before else {
        return Ok(offset);
    };
    let (key, row) = before?;
    let holds =
        Header::of(row::batch(row.value())).is_some_and(|header| header.last_offset() >= offset);
    Ok(if holds { key.value().1 } else { offset })
}

fn find(
    database: &Database,
    partition: u32,
    ends: Ends,
    when: When,
) -> Result<Option<Found>, Failure> {
    if ends.start >= ends.end {
        return Ok(None);
    }
    let table = database.begin_read()?.open_table(BATCHES)?;
    match when {
        When::From(timestamp) => first_from(&table, partition, ends, timestamp),
        When::Newest => {
            let found = first_from(&table, partition, ends, ends.newest)?;
            if found.is_some() {
                return Ok(found);
            }
            // The newest record ever is gone, so all existing records are read.
            newest(&table, partition, ends)
        }
    }
}

/// The first record with this timestamp or a newer one.
///
/// Each row has the newest timestamp of the partition up to it, which never decreases. So a binary search finds the
/// first batch that may contain the record.
fn first_from(
    table: &Batches,
    partition: u32,
    ends: Ends,
    timestamp: i64,
) -> Result<Option<Found>, Failure> {
    let (mut low, mut high) = (ends.start, ends.end);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = table
            .range((partition, i64::MIN)..=(partition, middle))?
            .next_back();
        let is_old = match entry {
            Some(entry) => row::newest(entry?.1.value()) < timestamp,
            None => true,
        };
        if is_old {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let first = first_with(table, partition, low)?;
    for entry in table.range((partition, first)..(partition, ends.end))? {
        let (_, row) = entry?;
        let batch = row::batch(row.value());
        let found = records(batch)
            .filter(|found| found.offset >= ends.start)
            .find(|found| found.timestamp >= timestamp);
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn newest(table: &Batches, partition: u32, ends: Ends) -> Result<Option<Found>, Failure> {
    let first = first_with(table, partition, ends.start)?;
    let mut newest: Option<Found> = None;
    for entry in table.range((partition, first)..(partition, ends.end))? {
        let (_, row) = entry?;
        for found in records(row::batch(row.value())) {
            if found.offset >= ends.start
                && newest.is_none_or(|newest| found.timestamp > newest.timestamp)
            {
                newest = Some(found);
            }
        }
    }
    Ok(newest)
}

/// Offset and timestamp of each record. A compressed batch counts as one record with its newest timestamp. So a search
/// by time may return a few records too many.
fn records(batch: &[u8]) -> impl Iterator<Item = Found> {
    let header = Header::of(batch);
    let whole = header.filter(|header| !header.is_plain());
    let plain = header.filter(|header| header.is_plain());
    let each = plain.into_iter().flat_map(move |header| {
        Records::of(batch).filter_map(move |record| {
            let record = record.ok()?;
            Some(Found {
                offset: header.base_offset() + i64::from(record.offset_delta),
                timestamp: header
                    .base_timestamp()
                    .saturating_add(record.timestamp_delta),
            })
        })
    });
    let whole = whole.map(|header| Found {
        offset: header.base_offset(),
        timestamp: header.max_timestamp(),
    });
    each.chain(whole)
}

fn committed(database: &Database, group: &str) -> Result<Vec<CommittedOffset>, Failure> {
    let table = database.begin_read()?.open_table(OFFSETS)?;
    let mut found = Vec::new();
    for entry in table.range((group, "", i32::MIN)..)? {
        let (key, row) = entry?;
        let (of, topic, partition) = key.value();
        if of != group {
            break;
        }
        let (offset, leader_epoch, metadata, _) = row.value();
        found.push(CommittedOffset {
            topic: topic.to_owned(),
            partition,
            offset,
            leader_epoch,
            metadata: metadata.to_owned(),
        });
    }
    Ok(found)
}

fn groups(database: &Database) -> Result<Vec<String>, Failure> {
    let table = database.begin_read()?.open_table(OFFSETS)?;
    let mut names: Vec<String> = Vec::new();
    for entry in table.iter()? {
        let (key, _) = entry?;
        let name = key.value().0;
        if names.last().is_none_or(|last| last != name) {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
