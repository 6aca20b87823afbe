//! Checks batches against another implementation of the format.
#![allow(clippy::unwrap_used)]

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    indexmap::IndexMap,
    records::{
        Compression, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, Record as Written,
        RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    },
};
use proptest::prelude::*;

use super::*;

/// A record for a batch: key, value, timestamp.
pub(crate) type Sample = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

/// A batch of these records. With a sequence (producer id, epoch, first sequence number) its producer is idempotent.
pub(crate) fn batch_of(records: &[Sample], sequence: Option<(i64, i16, i32)>) -> Bytes {
    let (producer_id, producer_epoch, first) =
        sequence.unwrap_or((NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE));
    let records: Vec<Written> = (0..)
        .zip(records)
        .map(|(number, (key, value, timestamp))| Written {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: i64::from(number),
            sequence: first + number,
            timestamp: *timestamp,
            key: key.clone().map(Bytes::from),
            value: value.clone().map(Bytes::from),
            headers: IndexMap::new(),
        })
        .collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    let mut batch = BytesMut::new();
    RecordBatchEncoder::encode(&mut batch, &records, &options).unwrap();
    batch.freeze()
}

/// The records of batches as another implementation reads them: offset, key, value.
pub(crate) fn read_back(mut batches: Bytes) -> Vec<(i64, Option<Bytes>, Option<Bytes>)> {
    let sets = RecordBatchDecoder::decode_all(&mut batches).unwrap();
    sets.into_iter()
        .flat_map(|set| set.records)
        .map(|record| (record.offset, record.key, record.value))
        .collect()
}

fn sample(key: &str, value: &str, timestamp: i64) -> Sample {
    (Some(key.into()), Some(value.into()), timestamp)
}

fn resealed(mut batch: Vec<u8>) -> Bytes {
    let checksum = crc32c::crc32c(&batch[CHECKED_FROM..]);
    batch[CHECKSUM_AT..CHECKED_FROM].copy_from_slice(&checksum.to_be_bytes());
    batch.into()
}

#[test]
fn a_batch_is_known_by_its_offsets_times_and_sequence() {
    let records = [
        sample("a", "1", 50),
        sample("b", "2", 70),
        sample("c", "3", 60),
    ];
    let batch = Batch::check(batch_of(&records, Some((9, 2, 100))), true).unwrap();
    assert_eq!((batch.offsets, batch.newest), (3, 70));
    let sequence = Sequence {
        producer: 9,
        epoch: 2,
        first: 100,
        last: 102,
    };
    assert_eq!(batch.sequence, Some(sequence));
    let plain = Batch::check(batch_of(&records, None), false).unwrap();
    assert_eq!(plain.sequence, None);
}

#[test]
fn a_stored_batch_has_its_offset_and_is_otherwise_what_was_sent() {
    let sent = batch_of(&[sample("a", "1", 5), sample("b", "2", 5)], None);
    let batch = Batch::check(sent.clone(), false).unwrap();
    let mut stored = vec![0; batch.len()];
    batch.write(41, &mut stored);
    assert_eq!(stored[MAGIC_AT..], sent[MAGIC_AT..]);
    let header = Header::of(&stored).unwrap();
    assert_eq!((header.base_offset(), header.last_offset()), (41, 42));
    let offsets: Vec<_> = read_back(stored.into())
        .iter()
        .map(|record| record.0)
        .collect();
    assert_eq!(offsets, [41, 42]);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let good = batch_of(&[sample("a", "1", 5), sample("b", "2", 5)], None).to_vec();
    let check = |batch: Vec<u8>| Batch::check(batch.into(), false).unwrap_err();
    let with = |at: usize, bytes: &[u8]| {
        let mut batch = good.clone();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        Batch::check(resealed(batch), false)
    };
    assert_eq!(check(Vec::new()), BatchError::Corrupt);
    assert_eq!(check(good[..good.len() - 1].to_vec()), BatchError::Corrupt);
    assert!(matches!(
        check([&good[..], &good].concat()),
        BatchError::Malformed(_)
    ));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(check(flipped), BatchError::Corrupt);
    let mut old = good.clone();
    old[MAGIC_AT] = 1;
    assert_eq!(check(old), BatchError::OldFormat);
    let attributes = |bits: i16| with(CHECKED_FROM, &bits.to_be_bytes()).unwrap_err();
    assert_eq!(attributes(TRANSACTIONAL), BatchError::Transactional);
    assert_eq!(attributes(CONTROL), BatchError::Transactional);
    assert!(matches!(attributes(7), BatchError::Malformed(_)));
    assert!(matches!(
        attributes(TIME_OF_APPEND),
        BatchError::Malformed(_)
    ));
    for count in [0, 1, 3, -1, i32::MAX] {
        let refused = with(COUNT_AT, &count.to_be_bytes()).unwrap_err();
        assert!(matches!(refused, BatchError::Malformed(_)), "{count}");
    }
    // The count matches the offsets, but there are no such records.
    let mut empty = good.clone();
    empty[COUNT_AT..HEADER].copy_from_slice(&3_i32.to_be_bytes());
    empty[LAST_DELTA_AT..BASE_TIME_AT].copy_from_slice(&2_i32.to_be_bytes());
    assert!(matches!(
        Batch::check(resealed(empty), false),
        Err(BatchError::Malformed(_))
    ));
    let far = with(BASE_TIME_AT, &i64::MAX.to_be_bytes());
    assert!(far.is_ok());
    let without_epoch = with(PRODUCER_AT, &5_i64.to_be_bytes()).unwrap_err();
    assert!(matches!(without_epoch, BatchError::Malformed(_)));
}

#[test]
fn a_compacted_topic_takes_only_what_can_be_compacted() {
    let keyless = batch_of(&[(None, Some(b"value".to_vec()), 5)], None);
    assert_eq!(
        Batch::check(keyless.clone(), true).unwrap_err(),
        BatchError::NoKey
    );
    assert!(Batch::check(keyless.clone(), false).is_ok());
    let mut compressed = keyless.to_vec();
    compressed[CHECKED_FROM + 1] = 4;
    let compressed = resealed(compressed);
    assert_eq!(
        Batch::check(compressed.clone(), true).unwrap_err(),
        BatchError::Compressed
    );
    assert!(Batch::check(compressed, false).is_ok());
}

#[test]
fn records_that_stay_keep_their_offsets() {
    let records = [
        sample("a", "1", 5),
        sample("b", "2", 6),
        sample("a", "3", 7),
    ];
    let batch = Batch::check(batch_of(&records, Some((1, 0, 0))), true).unwrap();
    let mut stored = vec![0; batch.len()];
    batch.write(10, &mut stored);
    let kept: Vec<_> = Records::of(&stored)
        .skip(1)
        .map(|record| record.unwrap().whole)
        .collect();
    let smaller = with_records(&stored, &kept).unwrap();
    let header = Header::of(&smaller).unwrap();
    assert_eq!((header.base_offset(), header.last_offset()), (10, 12));
    let left: Vec<_> = read_back(smaller.into())
        .into_iter()
        .map(|(offset, key, _)| (offset, key.unwrap()))
        .collect();
    assert_eq!(left, [(11, Bytes::from("b")), (12, Bytes::from("a"))]);
}

proptest! {
    #[test]
    fn every_batch_of_another_implementation_is_taken(
        records in proptest::collection::vec(any::<(Option<Vec<u8>>, Option<Vec<u8>>, u32)>(), 1..20),
    ) {
        let records: Vec<Sample> = records
            .into_iter()
            .map(|(key, value, time)| (key, value, i64::from(time)))
            .collect();
        let newest = records.iter().map(|record| record.2).max().unwrap();
        let batch = Batch::check(batch_of(&records, None), false).unwrap();
        prop_assert_eq!(batch.newest, newest);
        prop_assert_eq!(usize::try_from(batch.offsets).unwrap(), records.len());
    }

    #[test]
    fn a_batch_with_other_bytes_under_a_right_checksum_never_panics(
        at in any::<prop::sample::Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 1..12),
    ) {
        let records = [sample("key", "value", 5), sample("b", "2", 6)];
        let mut batch = batch_of(&records, Some((1, 0, 0))).to_vec();
        let at = at.index(batch.len());
        for (place, byte) in batch[at..].iter_mut().zip(bytes) {
            *place = byte;
        }
        let _ = Batch::check(resealed(batch.clone()), true);
        let _: Vec<_> = Records::of(&batch).collect();
    }
}
