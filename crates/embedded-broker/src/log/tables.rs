//! The tables of the broker's file, and the format of their rows.

use redb::TableDefinition;

/// The version of the layout below. A file with another version is refused.
pub(super) const FORMAT: i64 = 1;

/// Numbers of the broker: see the keys below.
pub(super) const NUMBERS: TableDefinition<'static, &str, i64> = TableDefinition::new("numbers");
/// In [`NUMBERS`]: [`FORMAT`].
pub(super) const FORMAT_KEY: &str = "format";
/// In [`NUMBERS`]: the number that the next partition gets.
pub(super) const NEXT_PARTITION: &str = "next partition";
/// In [`NUMBERS`]: the first producer id that has not been reserved.
pub(super) const NEXT_PRODUCER: &str = "next producer";

/// Texts of the broker.
pub(super) const TEXTS: TableDefinition<'static, &str, &str> = TableDefinition::new("texts");
/// In [`TEXTS`]: the id of the cluster, which is generated with the file.
pub(super) const CLUSTER: &str = "cluster";

/// Topic → (id, numbers of its partitions in order, given settings).
pub(super) type TopicRow = (u128, Vec<u32>, Vec<(&'static str, &'static str)>);
/// The topics.
pub(super) const TOPICS: TableDefinition<'static, &str, TopicRow> = TableDefinition::new("topics");

/// (number of the partition, offset of its first record) → a batch with data about it: see [`row`].
pub(super) const BATCHES: TableDefinition<'static, (u32, i64), &[u8]> =
    TableDefinition::new("batches");

/// Number of a partition → its first offset, if that is not 0.
pub(super) const STARTS: TableDefinition<'static, u32, i64> = TableDefinition::new("starts");

/// Numbers of partitions whose topic was deleted, but whose batches are not all removed yet.
pub(super) const DOOMED: TableDefinition<'static, u32, ()> = TableDefinition::new("doomed");

/// Number of a compacted partition → (offset up to which it is clean, bytes of that part, when its first tombstone may
/// be removed, in milliseconds since 1970).
pub(super) const CLEANED: TableDefinition<'static, u32, (i64, u64, i64)> =
    TableDefinition::new("cleaned");

/// (number of the partition, producer id) → its last batches: see [`Producer`](super::producers::Producer).
pub(super) const PRODUCERS: TableDefinition<'static, (u32, i64), &[u8]> =
    TableDefinition::new("producers");

/// (group, topic, partition) → (offset, leader epoch, metadata, committed at in milliseconds since 1970).
pub(super) type OffsetRow = (i64, i32, &'static str, i64);
/// The committed offsets of groups.
pub(super) const OFFSETS: TableDefinition<'static, (&str, &str, i32), OffsetRow> =
    TableDefinition::new("offsets");

/// The row of a batch: the newest timestamp of its partition up to here, when it was first compacted (0: never), the
/// batch.
pub(super) mod row {
    /// Bytes before the batch.
    pub(crate) const PREFIX: usize = 16;

    /// The newest timestamp of the partition up to this batch. It never decreases from one batch to the next, which
    /// allows a binary search.
    pub(crate) fn newest(row: &[u8]) -> i64 {
        row.first_chunk().copied().map_or(0, i64::from_be_bytes)
    }

    /// When the batch was first compacted, in milliseconds since 1970; 0 if never.
    pub(crate) fn compacted_at(row: &[u8]) -> i64 {
        row.get(8..)
            .and_then(|rest| rest.first_chunk().copied())
            .map_or(0, i64::from_be_bytes)
    }

    /// The batch itself.
    pub(crate) fn batch(row: &[u8]) -> &[u8] {
        row.get(PREFIX..).unwrap_or_default()
    }

    /// Writes the bytes before the batch.
    pub(crate) fn write_prefix(newest: i64, compacted_at: i64, room: &mut [u8]) {
        room[..8].copy_from_slice(&newest.to_be_bytes());
        room[8..PREFIX].copy_from_slice(&compacted_at.to_be_bytes());
    }
}
