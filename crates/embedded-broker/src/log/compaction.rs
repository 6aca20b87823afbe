//! Compaction keeps only the newest record of each key. A tombstone is removed after readers had time to see it
//! (KIP-534).
//!
//! The part of a partition up to the last compaction is clean: it contains each key once. A run collects the keys of
//! the newer part, with the offset of the newest record of each key. Then it reads the whole partition and keeps the
//! records that are not older than that. Records keep their offsets. The last batch is never removed, so that the
//! partition's end stays known.

use std::{collections::HashMap, ops::Range};

use redb::{Database, ReadableDatabase};

use super::{
    Log,
    committer::Unavailable,
    failure::Failure,
    settings::TopicSettings,
    tables::{BATCHES, CLEANED, row},
    topics::{Ends, Partition, Topic},
};
use crate::record_batch::{Header, Records, with_records};

/// Most bytes of keys in memory. If there are more, a run takes as many as fit, and the next run continues.
const MOST_KEYS: usize = 64 * 1024 * 1024;
/// About how many bytes a key costs in memory besides its own.
const PER_KEY: usize = 64;
/// Most bytes and batches that are processed between two changes.
const BYTES_AT_ONCE: usize = 1024 * 1024;
const BATCHES_AT_ONCE: usize = 500;
/// Fewer bytes than this do not justify an early run.
const LEAST_DIRTY: u64 = 64 * 1024;
/// No tombstone is waiting for its removal.
const NONE: i64 = i64::MAX;

/// The newest record of each key in the part that is not clean.
struct Keys {
    newest: HashMap<Box<[u8]>, i64>,
    /// The offset up to which keys were collected.
    up_to: i64,
}

/// What a run needs for each batch.
struct Run<'a> {
    keys: &'a Keys,
    now: i64,
    tombstones: i64,
}

/// A part of the partition after compaction.
#[derive(Default)]
struct Piece {
    /// The batches that change, with their new row; `None` if no record is left.
    changed: Vec<(i64, Option<Vec<u8>>)>,
    /// The offset where the next part begins; `None` at the end.
    next: Option<i64>,
    /// Bytes that remain.
    bytes: u64,
    /// When the first tombstone may be removed.
    tombstone: i64,
}

impl Log {
    /// Compacts a partition if it is due at `now`, in milliseconds since 1970.
    pub(super) async fn compact(
        &self,
        topic: &Topic,
        partition: &Partition,
        now: i64,
    ) -> Result<(), Unavailable> {
        let (number, ends) = (partition.number, partition.ends());
        let settings = &topic.settings;
        let is_due = self
            .read(|database| is_due(database, number, ends, settings, now))
            .await?;
        if !is_due {
            return Ok(());
        }
        let keys = self
            .read(|database| gather(database, number, ends, settings, now))
            .await?;
        let run = Run {
            keys: &keys,
            now,
            tombstones: settings.tombstones,
        };
        let mut from = Some(ends.start);
        let (mut bytes, mut tombstone, mut changed) = (0, NONE, 0);
        while let Some(begin) = from {
            let piece = self
                .read(|database| run.pass(database, number, begin))
                .await?;
            bytes += piece.bytes;
            tombstone = tombstone.min(piece.tombstone);
            changed += piece.changed.len();
            from = piece.next;
            if !piece.changed.is_empty() {
                self.change(move |changes| changes.replace(number, &piece.changed))
                    .await?;
            }
            // Lets other tasks read and write between two parts.
            tokio::task::yield_now().await;
        }
        let cleaned = (keys.up_to, bytes, tombstone);
        self.change(move |changes| changes.set_cleaned(number, cleaned))
            .await?;
        tracing::debug!(topic = %topic.name, batches = changed, bytes, "a partition was compacted");
        Ok(())
    }
}

fn cleaned(database: &Database, partition: u32) -> Result<(i64, u64, i64), Failure> {
    let table = database.begin_read()?.open_table(CLEANED)?;
    let row = table.get(partition)?;
    Ok(row.map_or((0, 0, NONE), |row| row.value()))
}

/// The base offset of the last batch, which is never removed.
fn last_batch(database: &Database, partition: u32) -> Result<i64, Failure> {
    let table = database.begin_read()?.open_table(BATCHES)?;
    let last = table
        .range((partition, i64::MIN)..=(partition, i64::MAX))?
        .next_back();
    match last {
        Some(entry) => Ok(entry?.0.value().1),
        None => Ok(0),
    }
}

/// Whether there are enough new records since the last run, a record has waited for the longest time, or a tombstone
/// may be removed.
fn is_due(
    database: &Database,
    partition: u32,
    ends: Ends,
    settings: &TopicSettings,
    now: i64,
) -> Result<bool, Failure> {
    let (clean_to, clean_bytes, tombstone) = cleaned(database, partition)?;
    if tombstone <= now {
        return Ok(true);
    }
    let begin = clean_to.max(ends.start);
    let table = database.begin_read()?.open_table(BATCHES)?;
    let mut dirty = 0;
    for entry in table.range((partition, begin)..=(partition, i64::MAX))? {
        let (_, row) = entry?;
        let batch = row::batch(row.value());
        let age = Header::of(batch).map_or(0, |header| now.saturating_sub(header.max_timestamp()));
        if age < settings.min_lag {
            break;
        }
        if age >= settings.max_lag {
            return Ok(true);
        }
        dirty += batch.len() as u64;
        // The ratio refers to the bytes of the whole partition.
        let all = (clean_bytes + dirty) as f64;
        if dirty >= LEAST_DIRTY && dirty as f64 >= settings.dirty_ratio * all {
            return Ok(true);
        }
    }
    Ok(false)
}

fn gather(
    database: &Database,
    partition: u32,
    ends: Ends,
    settings: &TopicSettings,
    now: i64,
) -> Result<Keys, Failure> {
    let (clean_to, ..) = cleaned(database, partition)?;
    let begin = clean_to.max(ends.start);
    let table = database.begin_read()?.open_table(BATCHES)?;
    let mut keys = Keys {
        newest: HashMap::new(),
        up_to: begin,
    };
    let mut held = 0;
    for entry in table.range((partition, begin)..=(partition, i64::MAX))? {
        let (_, row) = entry?;
        let batch = row::batch(row.value());
        let Some(header) = Header::of(batch) else {
            continue;
        };
        let is_young = now.saturating_sub(header.max_timestamp()) < settings.min_lag;
        if is_young || held >= MOST_KEYS {
            break;
        }
        if header.is_plain() {
            for record in Records::of(batch).filter_map(Result::ok) {
                let Some(key) = record.key else {
                    continue;
                };
                let offset = header.base_offset() + i64::from(record.offset_delta);
                match keys.newest.get_mut(key) {
                    Some(newest) => *newest = offset,
                    None => {
                        held += key.len() + PER_KEY;
                        keys.newest.insert(key.into(), offset);
                    }
                }
            }
        }
        keys.up_to = header.last_offset() + 1;
    }
    Ok(keys)
}

impl Run<'_> {
    /// Processes some batches from this offset on.
    fn pass(&self, database: &Database, partition: u32, from: i64) -> Result<Piece, Failure> {
        let last = last_batch(database, partition)?;
        let table = database.begin_read()?.open_table(BATCHES)?;
        let mut piece = Piece {
            tombstone: NONE,
            ..Piece::default()
        };
        let mut seen = 0;
        let range = table.range((partition, from)..(partition, self.keys.up_to))?;
        for (count, entry) in range.enumerate() {
            let (key, row) = entry?;
            let (base, row) = (key.value().1, row.value());
            if count >= BATCHES_AT_ONCE || seen >= BYTES_AT_ONCE {
                piece.next = Some(base);
                break;
            }
            seen += row.len();
            self.compact(base, row, base == last, &mut piece);
        }
        Ok(piece)
    }

    fn compact(&self, base: i64, row: &[u8], is_last: bool, piece: &mut Piece) {
        let batch = row::batch(row);
        let plain = Header::of(batch).filter(|header| header.is_plain());
        if plain.is_none() {
            piece.bytes += batch.len() as u64;
            return;
        }
        let compacted_at = match row::compacted_at(row) {
            0 => self.now,
            before => before,
        };
        let tombstones_go = compacted_at.saturating_add(self.tombstones);
        let mut kept: Vec<Range<usize>> = Vec::new();
        let (mut dropped, mut has_tombstone) = (false, false);
        for record in Records::of(batch) {
            let Ok(record) = record else {
                // The batch was validated on arrival. If it cannot be read nevertheless, it is left unchanged.
                piece.bytes += batch.len() as u64;
                return;
            };
            let offset = base + i64::from(record.offset_delta);
            let is_newest = record
                .key
                .and_then(|key| self.keys.newest.get(key))
                .is_none_or(|newest| offset >= *newest);
            if is_newest && !(record.is_tombstone && self.now >= tombstones_go) {
                has_tombstone |= record.is_tombstone;
                kept.push(record.whole);
            } else {
                dropped = true;
            }
        }
        if has_tombstone {
            piece.tombstone = piece.tombstone.min(tombstones_go);
        }
        if kept.is_empty() {
            if is_last {
                // Only expired tombstones are left. A run removes them when further batches follow.
                piece.bytes += batch.len() as u64;
            } else {
                piece.changed.push((base, None));
            }
            return;
        }
        let is_stamped = row::compacted_at(row) != 0 || !has_tombstone;
        let smaller = if dropped {
            with_records(batch, &kept)
        } else {
            None
        };
        let batch = smaller.as_deref().unwrap_or(batch);
        piece.bytes += batch.len() as u64;
        if dropped || !is_stamped {
            let mut changed = vec![0; row::PREFIX];
            row::write_prefix(row::newest(row), compacted_at, &mut changed);
            changed.extend_from_slice(batch);
            piece.changed.push((base, Some(changed)));
        }
    }
}
