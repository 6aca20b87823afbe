//! Acknowledged data survives whatever happens to the disk. Also compaction and retention, as visible in the log.
#![allow(clippy::unwrap_used)]

mod disk;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::record_batch::{
    Batch,
    tests::{Sample, batch_of, read_back},
};
use disk::Disk;

const LIMIT: Duration = Duration::from_secs(30);
const TOPIC: &str = "events";

fn open(opener: Opener) -> Log {
    Log::open(opener).unwrap().0
}

fn sample(key: &str, value: Option<&str>) -> Sample {
    (Some(key.into()), value.map(Into::into), 1_000)
}

async fn create(log: &Log, settings: &[(&str, &str)]) {
    let settings = TopicSettings::from_given(settings.iter().copied()).unwrap();
    log.change(|changes| changes.create_topic(TOPIC, 1, settings))
        .await
        .unwrap();
}

fn partition(log: &Log) -> Arc<Partition> {
    Arc::clone(log.topics().named(TOPIC).unwrap().partition(0).unwrap())
}

async fn append(log: &Log, batch: Bytes) -> Result<Result<Appended, Refused>, Unavailable> {
    let number = partition(log).number;
    let batch = Batch::check(batch, false).unwrap();
    log.change(move |changes| changes.append(number, &batch, now()))
        .await
}

/// Appends one record of an idempotent producer, with `number` as its sequence number and value.
async fn append_number(log: &Log, number: i32) -> Result<Result<Appended, Refused>, Unavailable> {
    let record = sample("key", Some(&number.to_string()));
    append(log, batch_of(&[record], Some((7, 0, number)))).await
}

/// The offset and value of all records.
async fn all(log: &Log) -> Vec<(i64, String)> {
    let partition = partition(log);
    let start = partition.ends().start;
    let batches = log.batches(&partition, start, usize::MAX, true).await;
    read_back(batches.unwrap())
        .into_iter()
        .map(|(offset, _, value)| {
            let value = value.unwrap_or_default();
            (offset, String::from_utf8(value.to_vec()).unwrap())
        })
        .collect()
}

fn numbers(count: i32) -> Vec<(i64, String)> {
    (0..count)
        .map(|number| (i64::from(number), number.to_string()))
        .collect()
}

#[tokio::test]
async fn what_was_acknowledged_before_the_power_went_is_there() {
    let disk = Disk::default();
    let log = open(disk.opener());
    create(&log, &[]).await;
    for number in 0..60 {
        // One append is in flight when the power is lost.
        let batch = batch_of(
            &[sample("key", Some(&number.to_string()))],
            Some((7, 0, number)),
        );
        let batch = Batch::check(batch, false).unwrap();
        let to = partition(&log).number;
        let work = move |changes: &mut Changes<'_>| changes.append(to, &batch, 1);
        let on_its_way = log.submit(0, work).await;
        for seed in 0..4 {
            let found = disk.after_power_loss(seed + 10 * u64::from(number.unsigned_abs()));
            let again = open(found.opener());
            let left = all(&again).await;
            let acknowledged = numbers(number);
            assert_eq!(left[..acknowledged.len()], acknowledged);
            // The append in flight is stored entirely or not at all, and is not stored twice.
            assert!(left.len() <= acknowledged.len() + 1);
            append_number(&again, number).await.unwrap().unwrap();
            assert_eq!(all(&again).await, numbers(number + 1));
        }
        answer(on_its_way).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_works_again_when_there_is_room() {
    let disk = Disk::default();
    let log = open(disk.opener());
    create(&log, &[]).await;
    let mut next = 0;
    for writes in 0..12 {
        append_number(&log, next).await.unwrap().unwrap();
        next += 1;
        disk.fill_after(writes);
        let begin = tokio::time::Instant::now();
        // Appends until one fails. The earlier ones were acknowledged.
        while append_number(&log, next).await.is_ok() {
            next += 1;
        }
        disk.fill();
        assert_eq!(append_number(&log, next).await, Err(Unavailable));
        assert!(log.change(|_| Ok(())).await.is_err());
        disk.make_room();
        while append_number(&log, next).await.is_err() {
            assert!(begin.elapsed() < LIMIT);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        next += 1;
        assert_eq!(all(&log).await, numbers(next));
    }
    drop(log);
    assert_eq!(all(&open(disk.opener())).await, numbers(next));
}

#[tokio::test]
async fn who_waits_for_records_is_told_when_the_log_was_opened_anew() {
    let disk = Disk::default();
    let log = open(disk.opener());
    create(&log, &[]).await;
    let arrived = Arc::new(tokio::sync::Notify::new());
    let _notified = partition(&log).notify(&arrived);
    disk.fill();
    assert!(append_number(&log, 0).await.is_err());
    disk.make_room();
    tokio::time::timeout(LIMIT, arrived.notified())
        .await
        .unwrap();
    append_number(&log, 0).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_file_made_in_mid_write_is_refused_or_holds_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    let (log, _ended) = Log::open_at(&path).unwrap();
    create(&log, &[]).await;
    let log = Arc::new(log);
    let acknowledged = Arc::new(std::sync::atomic::AtomicI32::new(0));
    let writer = {
        let (log, acknowledged) = (Arc::clone(&log), Arc::clone(&acknowledged));
        tokio::spawn(async move {
            for number in 0..400 {
                append_number(&log, number).await.unwrap().unwrap();
                acknowledged.store(number + 1, std::sync::atomic::Ordering::SeqCst);
            }
        })
    };
    let mut taken = 0;
    while !writer.is_finished() {
        let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
        let copy = directory.path().join(format!("copy-{taken}"));
        std::fs::copy(&path, &copy).unwrap();
        check_copy(&copy, before).await;
        taken += 1;
    }
    writer.await.unwrap();
    assert!(taken > 0);
}

async fn check_copy(copy: &Path, acknowledged: i32) {
    match Log::open_at(copy) {
        Ok((log, _ended)) => {
            let left = all(&log).await;
            let wanted = numbers(acknowledged);
            assert_eq!(left[..wanted.len()], wanted);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

#[tokio::test]
async fn a_file_that_is_no_log_and_one_of_another_format_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other");
    std::fs::write(
        &other,
        b"SQLite format 3\0 and more of that, for longer than a header",
    )
    .unwrap();
    assert!(Log::open_at(&other).is_err());
    let newer = directory.path().join("newer");
    let database = open_file(&newer).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(tables::NUMBERS)
        .unwrap()
        .insert(tables::FORMAT_KEY, tables::FORMAT + 1)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let refused = Log::open_at(&newer).unwrap_err();
    assert!(refused.to_string().contains("format 2"), "{refused}");
}

fn in_memory() -> Log {
    open(Disk::default().opener())
}

#[tokio::test]
async fn a_batch_that_is_sent_again_is_acknowledged_with_its_offset_and_stored_once() {
    let log = in_memory();
    create(&log, &[]).await;
    let start = 0;
    for number in 0..8 {
        let appended = append_number(&log, number).await.unwrap();
        let offset = i64::from(number);
        assert_eq!(appended, Ok(Appended { offset, start }));
    }
    let again = append_number(&log, 5).await.unwrap();
    assert_eq!(again, Ok(Appended { offset: 5, start }));
    assert_eq!(
        append_number(&log, 9).await.unwrap(),
        Err(Refused::OutOfOrder)
    );
    assert_eq!(all(&log).await, numbers(8));
}

#[tokio::test]
async fn two_batches_of_a_producer_in_one_commit_are_in_order() {
    let log = in_memory();
    create(&log, &[]).await;
    let number = partition(&log).number;
    let batch = |first: i32| {
        let record = sample("key", Some("value"));
        Batch::check(batch_of(&[record], Some((7, 0, first))), false).unwrap()
    };
    let mut pending = Vec::new();
    for first in [0, 1, 1, 3, 2] {
        let batch = batch(first);
        let work = move |changes: &mut Changes<'_>| changes.append(number, &batch, 1);
        pending.push(log.submit(0, work).await);
    }
    let mut outcomes = Vec::new();
    for one in pending {
        outcomes.push(answer(one).await.unwrap().map(|appended| appended.offset));
    }
    assert_eq!(
        outcomes,
        [Ok(0), Ok(1), Ok(1), Err(Refused::OutOfOrder), Ok(2)]
    );
}

#[tokio::test]
async fn a_deleted_topic_takes_its_batches_and_offsets_with_it() {
    let log = in_memory();
    create(&log, &[]).await;
    append_number(&log, 0).await.unwrap().unwrap();
    let old = partition(&log);
    let committed = CommittedOffset {
        topic: TOPIC.to_owned(),
        partition: 0,
        offset: 1,
        leader_epoch: 0,
        metadata: "note".to_owned(),
    };
    let commit = vec![committed.clone()];
    log.change(move |changes| changes.commit_offsets("group", &commit, 5))
        .await
        .unwrap();
    assert_eq!(log.committed("group").await.unwrap(), [committed]);
    assert_eq!(log.groups().await.unwrap(), ["group"]);
    let topic = Arc::clone(log.topics().named(TOPIC).unwrap());
    log.change(move |changes| changes.delete_topic(&topic))
        .await
        .unwrap();
    assert!(log.committed("group").await.unwrap().is_empty());
    let batch = Batch::check(batch_of(&[sample("a", None)], None), false).unwrap();
    let number = old.number;
    let late = log
        .change(move |changes| changes.append(number, &batch, 1))
        .await;
    assert_eq!(late.unwrap(), Err(Refused::NoPartition));
    create(&log, &[]).await;
    assert!(all(&log).await.is_empty());
    log.clean(now()).await.unwrap();
    let left = log.batches(&old, 0, usize::MAX, true).await.unwrap();
    assert!(left.is_empty());
}

/// The keys and values in the log.
async fn pairs(log: &Log) -> Vec<(String, String)> {
    let partition = partition(log);
    let batches = log.batches(&partition, 0, usize::MAX, true).await.unwrap();
    let text =
        |bytes: Option<Bytes>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
    read_back(batches)
        .into_iter()
        .map(|(_, key, value)| (text(key), text(value)))
        .collect()
}

#[tokio::test]
async fn a_tombstone_stays_as_long_as_it_has_to_and_the_last_batch_always() {
    const DAY: i64 = 86_400_000;
    let log = in_memory();
    let settings = [
        ("cleanup.policy", "compact"),
        ("max.compaction.lag.ms", "86400000"),
        ("delete.retention.ms", "172800000"),
    ];
    create(&log, &settings).await;
    for (key, value) in [
        ("a", Some("1")),
        ("b", Some("1")),
        ("a", None),
        ("b", Some("2")),
    ] {
        append(&log, batch_of(&[sample(key, value)], None))
            .await
            .unwrap()
            .unwrap();
    }
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let (tombstone, last) = (pair("a", ""), pair("b", "2"));
    log.clean(1_000 + DAY - 1).await.unwrap();
    assert_eq!(pairs(&log).await.len(), 4);
    log.clean(1_000 + DAY).await.unwrap();
    assert_eq!(pairs(&log).await, [tombstone.clone(), last.clone()]);
    log.clean(1_000 + 3 * DAY - 1).await.unwrap();
    assert_eq!(pairs(&log).await, [tombstone, last.clone()]);
    log.clean(1_000 + 3 * DAY).await.unwrap();
    assert_eq!(pairs(&log).await, [last]);
    assert_eq!(partition(&log).ends().end, 4);
}

#[tokio::test]
async fn what_the_last_record_of_a_partition_replaces_goes_in_time_and_the_end_stays() {
    const DAY: i64 = 86_400_000;
    let disk = Disk::default();
    let log = open(disk.opener());
    let settings = [
        ("cleanup.policy", "compact"),
        ("max.compaction.lag.ms", "86400000"),
        ("delete.retention.ms", "172800000"),
    ];
    create(&log, &settings).await;
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    for records in [
        vec![sample("a", Some("1")), sample("b", Some("1"))],
        vec![sample("b", Some("2")), sample("b", Some("3"))],
        vec![sample("a", None)],
    ] {
        append(&log, batch_of(&records, None))
            .await
            .unwrap()
            .unwrap();
    }
    let (value, tombstone) = (pair("b", "3"), pair("a", ""));
    log.clean(1_000 + DAY).await.unwrap();
    assert_eq!(pairs(&log).await, [value.clone(), tombstone.clone()]);
    // The tombstone has expired, but nothing follows it.
    for days in 3..6 {
        log.clean(1_000 + days * DAY).await.unwrap();
        assert_eq!(pairs(&log).await, [value.clone(), tombstone.clone()]);
    }
    drop(log);
    let log = open(disk.opener());
    assert_eq!(partition(&log).ends().end, 5);
    append(&log, batch_of(&[sample("c", Some("1"))], None))
        .await
        .unwrap()
        .unwrap();
    log.clean(1_000 + 6 * DAY).await.unwrap();
    assert_eq!(pairs(&log).await, [value, pair("c", "1")]);
    assert_eq!(partition(&log).ends().end, 6);
}

#[tokio::test]
async fn many_keys_in_large_batches_are_compacted_to_one_record_each() {
    let log = in_memory();
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.1"),
    ];
    create(&log, &settings).await;
    let long = "x".repeat(200);
    for round in 0..6 {
        let records: Vec<Sample> = (0..500)
            .map(|key| sample(&format!("key-{key}"), Some(&format!("{round}-{long}"))))
            .collect();
        append(&log, batch_of(&records, None))
            .await
            .unwrap()
            .unwrap();
    }
    append(&log, batch_of(&[sample("end", Some("end"))], None))
        .await
        .unwrap()
        .unwrap();
    log.clean(now()).await.unwrap();
    let left = pairs(&log).await;
    assert_eq!(left.len(), 501);
    assert!(left[..500].iter().all(|(_, value)| value.starts_with("5-")));
    // The log is clean now, so nothing is due.
    let bytes = log
        .batches(&partition(&log), 0, usize::MAX, true)
        .await
        .unwrap();
    log.clean(now()).await.unwrap();
    assert_eq!(
        log.batches(&partition(&log), 0, usize::MAX, true)
            .await
            .unwrap(),
        bytes
    );
}

#[tokio::test]
async fn a_producer_that_is_silent_for_a_day_is_forgotten() {
    let log = in_memory();
    create(&log, &[]).await;
    append_number(&log, 0).await.unwrap().unwrap();
    assert_eq!(
        append_number(&log, 5).await.unwrap(),
        Err(Refused::OutOfOrder)
    );
    log.clean(now() + 2 * 86_400_000).await.unwrap();
    append_number(&log, 5).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_producer_that_wrote_since_it_was_found_silent_is_not_forgotten() {
    let log = in_memory();
    create(&log, &[]).await;
    append_number(&log, 0).await.unwrap().unwrap();
    let found = (1, (partition(&log).number, 7));
    log.change(move |changes| {
        changes.forget_producers(&[found]);
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(
        append_number(&log, 5).await.unwrap(),
        Err(Refused::OutOfOrder)
    );
}

#[tokio::test]
async fn records_are_found_by_time_also_after_the_newest_is_gone() {
    let log = in_memory();
    create(&log, &[]).await;
    for time in [100, 900, 300, 500] {
        let record = (Some(b"key".to_vec()), None, time);
        append(&log, batch_of(&[record], None))
            .await
            .unwrap()
            .unwrap();
    }
    let partition = partition(&log);
    let found = async |when| log.find(&partition, when).await.unwrap();
    let at = |offset, timestamp| Some(Found { offset, timestamp });
    assert_eq!(found(When::From(0)).await, at(0, 100));
    assert_eq!(found(When::From(101)).await, at(1, 900));
    assert_eq!(found(When::From(901)).await, None);
    assert_eq!(found(When::Newest).await, at(1, 900));
    let number = partition.number;
    log.change(move |changes| changes.set_start(number, 2))
        .await
        .unwrap();
    log.clean(now()).await.unwrap();
    assert_eq!(found(When::From(101)).await, at(2, 300));
    assert_eq!(found(When::From(400)).await, at(3, 500));
    assert_eq!(found(When::Newest).await, at(3, 500));
}

#[tokio::test]
async fn producer_ids_are_never_given_twice() {
    let directory: TempDir = tempfile::tempdir().unwrap();
    let path = directory.path().join("log.redb");
    let mut ids = std::collections::HashSet::new();
    for _ in 0..3 {
        let (log, _ended) = Log::open_at(&path).unwrap();
        for _ in 0..3 {
            assert!(ids.insert(log.producer_id().await.unwrap()));
        }
    }
}
