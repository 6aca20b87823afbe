//! Record batches as bytes (format version 2, KIP-98). A batch from a producer is validated once, and stored and
//! returned unchanged.
//!
//! Apache Kafka's documentation describes the format under "Record Batch". The checksum starts after the base offset,
//! the length and the leader epoch, so a broker may set those three without computing it again.

use std::ops::Range;

use bytes::Bytes;

/// Bytes of a batch before its records.
pub(crate) const HEADER: usize = 61;
/// The leader epoch of every batch. The only node has been the leader since the topic was created.
pub(crate) const LEADER_EPOCH: i32 = 0;

const LENGTH_AT: usize = 8;
/// The length field counts the bytes from here on.
const COUNTED_FROM: usize = 12;
const EPOCH_AT: usize = 12;
const MAGIC_AT: usize = 16;
const CHECKSUM_AT: usize = 17;
const CHECKED_FROM: usize = 21;
const LAST_DELTA_AT: usize = 23;
const BASE_TIME_AT: usize = 27;
const MAX_TIME_AT: usize = 35;
const PRODUCER_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const SEQUENCE_AT: usize = 53;
const COUNT_AT: usize = 57;

const COMPRESSION: i16 = 0b111;
const LARGEST_COMPRESSION: i16 = 4;
const TIME_OF_APPEND: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// Why a batch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// It is cut off, or its checksum does not match its content.
    #[error("the record batch is cut off or its checksum (CRC32C) does not match")]
    Corrupt,
    /// Its message format is from before Kafka 0.11.
    #[error(
        "the message format is too old: record batches of version 2 are taken (Kafka 0.11 and later)"
    )]
    OldFormat,
    /// It belongs to a transaction, or is a transaction marker.
    #[error("this broker has no transactions")]
    Transactional,
    /// The broker cannot separate the records of a compressed batch.
    #[error(
        "a compacted topic of this broker takes uncompressed batches only (compression.type=none)"
    )]
    Compressed,
    /// A record of a compacted topic has no key.
    #[error("each record of a compacted topic needs a key")]
    NoKey,
    /// Its content is inconsistent.
    #[error("the record batch is malformed: {0}")]
    Malformed(&'static str),
}

/// The producer of a batch, and the batch's place in its sequence (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sequence {
    pub(crate) producer: i64,
    pub(crate) epoch: i16,
    /// The sequence number of the first record.
    pub(crate) first: i32,
    /// The sequence number of the last record.
    pub(crate) last: i32,
}

/// The fixed part of a batch. Only its length has been checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header<'a>(&'a [u8]);

impl<'a> Header<'a> {
    /// The header of a stored batch, or of one that is about to be validated; `None` if the bytes are too few.
    pub(crate) fn of(batch: &'a [u8]) -> Option<Self> {
        (batch.len() >= HEADER).then_some(Self(batch))
    }

    fn i64(self, at: usize) -> i64 {
        self.0[at..]
            .first_chunk()
            .copied()
            .map_or(0, i64::from_be_bytes)
    }

    fn i32(self, at: usize) -> i32 {
        self.0[at..]
            .first_chunk()
            .copied()
            .map_or(0, i32::from_be_bytes)
    }

    fn i16(self, at: usize) -> i16 {
        self.0[at..]
            .first_chunk()
            .copied()
            .map_or(0, i16::from_be_bytes)
    }

    /// The offset of the first record.
    pub(crate) fn base_offset(self) -> i64 {
        self.i64(0)
    }

    /// The offset of the last record that the batch was created with.
    pub(crate) fn last_offset(self) -> i64 {
        self.base_offset() + i64::from(self.i32(LAST_DELTA_AT))
    }

    /// The newest timestamp of its records, in milliseconds since 1970, as stated by the producer.
    pub(crate) fn max_timestamp(self) -> i64 {
        self.i64(MAX_TIME_AT)
    }

    fn attributes(self) -> i16 {
        self.i16(CHECKED_FROM)
    }

    /// Whether its records are uncompressed.
    pub(crate) fn is_plain(self) -> bool {
        self.attributes() & COMPRESSION == 0
    }

    pub(crate) fn base_timestamp(self) -> i64 {
        self.i64(BASE_TIME_AT)
    }

    fn count(self) -> i32 {
        self.i32(COUNT_AT)
    }
}

/// A valid batch, which may be stored.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    bytes: Bytes,
    /// How many offsets it uses.
    pub(crate) offsets: i32,
    /// The newest timestamp of its records, in milliseconds since 1970.
    pub(crate) newest: i64,
    /// `None` if the producer is not idempotent.
    pub(crate) sequence: Option<Sequence>,
}

impl Batch {
    /// Validates what a producer sent for one partition: exactly one batch, as required since version 3 of the request.
    ///
    /// # Errors
    /// If it is inconsistent, or is of a kind that this broker does not store.
    pub(crate) fn check(bytes: Bytes, compacted: bool) -> Result<Self, BatchError> {
        let header = Header::of(&bytes).ok_or(BatchError::Corrupt)?;
        if header.0[MAGIC_AT] != 2 {
            return Err(BatchError::OldFormat);
        }
        let length = usize::try_from(header.i32(LENGTH_AT)).map_err(|_| BatchError::Corrupt)?;
        match (length + COUNTED_FROM).cmp(&bytes.len()) {
            std::cmp::Ordering::Greater => return Err(BatchError::Corrupt),
            std::cmp::Ordering::Less => {
                return Err(BatchError::Malformed("one batch a partition is taken"));
            }
            std::cmp::Ordering::Equal => {}
        }
        if header.i32(CHECKSUM_AT).cast_unsigned() != crc32c::crc32c(&bytes[CHECKED_FROM..]) {
            return Err(BatchError::Corrupt);
        }
        let attributes = header.attributes();
        if attributes & (TRANSACTIONAL | CONTROL) != 0 {
            return Err(BatchError::Transactional);
        }
        if attributes & TIME_OF_APPEND != 0 || attributes & COMPRESSION > LARGEST_COMPRESSION {
            return Err(BatchError::Malformed("unknown attributes"));
        }
        let offsets = header.count();
        if offsets < 1 || header.i32(LAST_DELTA_AT) != offsets - 1 {
            return Err(BatchError::Malformed(
                "its number of records is not that of its offsets",
            ));
        }
        let newest = if header.is_plain() {
            check_records(header, &bytes, compacted)?
        } else if compacted {
            return Err(BatchError::Compressed);
        } else {
            header.max_timestamp()
        };
        Ok(Self {
            offsets,
            newest,
            sequence: sequence(header)?,
            bytes,
        })
    }

    /// The size of the whole batch, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the stored form of the batch: with its base offset and our leader epoch. `room` has [`len`](Self::len)
    /// bytes.
    pub(crate) fn write(&self, base_offset: i64, room: &mut [u8]) {
        room.copy_from_slice(&self.bytes);
        room[..LENGTH_AT].copy_from_slice(&base_offset.to_be_bytes());
        room[EPOCH_AT..MAGIC_AT].copy_from_slice(&LEADER_EPOCH.to_be_bytes());
    }
}

fn sequence(header: Header<'_>) -> Result<Option<Sequence>, BatchError> {
    let (producer, epoch, first) = (
        header.i64(PRODUCER_AT),
        header.i16(PRODUCER_EPOCH_AT),
        header.i32(SEQUENCE_AT),
    );
    if producer < 0 {
        return Ok(None);
    }
    if epoch < 0 || first < 0 {
        return Err(BatchError::Malformed(
            "it has a producer id without an epoch and a sequence number",
        ));
    }
    Ok(Some(Sequence {
        producer,
        epoch,
        first,
        last: sequence_after(first, header.count() - 1),
    }))
}

/// The sequence number after this many records. The largest one is followed by 0.
pub(crate) fn sequence_after(sequence: i32, records: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    let wrapped = sum % (i64::from(i32::MAX) + 1);
    i32::try_from(wrapped).unwrap_or_default()
}

/// The newest timestamp of the records, after checking that they match the header.
fn check_records(header: Header<'_>, bytes: &[u8], keyed: bool) -> Result<i64, BatchError> {
    let mut newest = i64::MIN;
    for (count, record) in (0..).zip(Records::of(bytes)) {
        let record = record?;
        if record.offset_delta != count {
            return Err(BatchError::Malformed("its offsets are not consecutive"));
        }
        if keyed && record.key.is_none() {
            return Err(BatchError::NoKey);
        }
        let timestamp = header
            .base_timestamp()
            .checked_add(record.timestamp_delta)
            .ok_or(BatchError::Malformed("a timestamp is out of range"))?;
        newest = newest.max(timestamp);
    }
    Ok(newest)
}

/// A record of an uncompressed batch.
#[derive(Clone, Debug)]
pub(crate) struct Record<'a> {
    /// Its bytes, including the length before them.
    pub(crate) whole: Range<usize>,
    pub(crate) timestamp_delta: i64,
    /// Its offset minus the base offset.
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    /// Whether it has no value, which deletes its key.
    pub(crate) is_tombstone: bool,
}

/// The records of an uncompressed batch. There must be as many as the header says, and they must fill the batch.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
    left: i32,
}

impl<'a> Records<'a> {
    /// The records of a whole batch.
    pub(crate) fn of(batch: &'a [u8]) -> Self {
        let left = Header::of(batch).map_or(0, Header::count);
        Self {
            bytes: batch,
            at: HEADER,
            left,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, BatchError> {
        let begin = self.at;
        let length = self.varint()?;
        let length = usize::try_from(length).map_err(|_| BatchError::Malformed(CUT_OFF))?;
        let end = self
            .at
            .checked_add(length)
            .filter(|end| *end <= self.bytes.len())
            .ok_or(BatchError::Malformed(CUT_OFF))?;
        // Skips the attributes, which are unused so far.
        self.skip(1, end)?;
        let timestamp_delta = self.varint()?;
        let offset_delta = i32::try_from(self.varint()?)
            .map_err(|_| BatchError::Malformed("an offset is out of range"))?;
        let key = self.optional(end)?;
        let value = self.optional(end)?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err(BatchError::Malformed("a number of headers is negative"));
        }
        // Each header has at least two bytes, so the record's length bounds the loop.
        for _ in 0..headers {
            self.optional(end)?
                .ok_or(BatchError::Malformed("a header has no name"))?;
            self.optional(end)?;
        }
        if self.at != end {
            return Err(BatchError::Malformed(
                "a record has another length than it says",
            ));
        }
        Ok(Record {
            whole: begin..end,
            timestamp_delta,
            offset_delta,
            key,
            is_tombstone: value.is_none(),
        })
    }

    fn skip(&mut self, count: usize, end: usize) -> Result<&'a [u8], BatchError> {
        let to = self
            .at
            .checked_add(count)
            .filter(|to| *to <= end)
            .ok_or(BatchError::Malformed(CUT_OFF))?;
        let skipped = &self.bytes[self.at..to];
        self.at = to;
        Ok(skipped)
    }

    /// Bytes with their length before them; `None` for a negative length.
    fn optional(&mut self, end: usize) -> Result<Option<&'a [u8]>, BatchError> {
        match usize::try_from(self.varint()?) {
            Ok(length) => self.skip(length, end).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// A signed number in the zigzag encoding of Protocol Buffers.
    fn varint(&mut self) -> Result<i64, BatchError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self
                .bytes
                .get(self.at)
                .ok_or(BatchError::Malformed(CUT_OFF))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed());
            }
        }
        Err(BatchError::Malformed("a number is too long"))
    }
}

const CUT_OFF: &str = "a record is cut off";

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left < 1 {
            let is_behind = self.at != self.bytes.len() && self.left == 0;
            self.left = -1;
            return is_behind.then_some(Err(BatchError::Malformed("bytes follow its records")));
        }
        self.left -= 1;
        let read = self.read();
        if read.is_err() {
            self.left = -1;
        }
        Some(read)
    }
}

/// A stored batch with only some of its records, at their original offsets.
pub(crate) fn with_records(batch: &[u8], kept: &[Range<usize>]) -> Option<Vec<u8>> {
    let header = Header::of(batch)?;
    let length = HEADER + kept.iter().map(Range::len).sum::<usize>();
    let mut smaller = Vec::with_capacity(length);
    smaller.extend_from_slice(&batch[..HEADER]);
    for record in kept {
        smaller.extend_from_slice(batch.get(record.clone())?);
    }
    debug_assert!(header.is_plain());
    let counted = i32::try_from(length - COUNTED_FROM).ok()?;
    smaller[LENGTH_AT..EPOCH_AT].copy_from_slice(&counted.to_be_bytes());
    let count = i32::try_from(kept.len()).ok()?;
    smaller[COUNT_AT..HEADER].copy_from_slice(&count.to_be_bytes());
    let checksum = crc32c::crc32c(&smaller[CHECKED_FROM..]);
    smaller[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    Some(smaller)
}

#[cfg(test)]
pub(crate) mod tests;
