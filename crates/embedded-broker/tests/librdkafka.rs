//! Uses this broker with librdkafka, the client of the services: every feature that services and operators use.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseProducer, FutureProducer, FutureRecord, Producer},
};
use support::{LIMIT, TestBroker, key, options, poll, read, send, value};

#[tokio::test(flavor = "multi_thread")]
async fn records_come_back_as_they_were_sent_in_order_with_headers_and_time() {
    let broker = TestBroker::start();
    broker.create("events", 3, &[]).await;
    let producer = broker.producer();
    for number in 0..60 {
        let key = format!("key-{}", number % 7);
        let value = number.to_string();
        let record = FutureRecord::to("events")
            .key(&key)
            .payload(&value)
            .timestamp(1_000 + number)
            .headers(
                OwnedHeaders::new()
                    .insert(Header {
                        key: "type",
                        value: Some("event"),
                    })
                    .insert(Header::<&str> {
                        key: "empty",
                        value: None,
                    }),
            );
        producer.send(record, LIMIT).await.unwrap();
    }

    let consumer = broker.consumer("readers");
    consumer.subscribe(&["events"]).unwrap();
    let mut by_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for message in read(&consumer, 60) {
        let number: i64 = value(&message).unwrap().parse().unwrap();
        assert_eq!(message.timestamp().to_millis(), Some(1_000 + number));
        let headers = message.headers().unwrap();
        assert_eq!(headers.get(0).value, Some(&b"event"[..]));
        assert_eq!(headers.get(1).value, None);
        by_key
            .entry(key(&message).to_owned())
            .or_default()
            .push(number);
    }
    assert_eq!(by_key.len(), 7);
    assert!(by_key.values().all(|numbers| numbers.is_sorted()));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_every_compression_come_back() {
    let broker = TestBroker::start();
    broker.create("events", 1, &[]).await;
    let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
    for codec in codecs {
        let producer: FutureProducer = broker.client(&[("compression.codec", codec)]);
        send(&producer, "events", codec, Some(&"again and ".repeat(500))).await;
    }
    let messages = read(&broker.reader("events", 1), codecs.len());
    for (message, codec) in messages.iter().zip(codecs) {
        assert_eq!(key(message), codec);
        assert_eq!(value(message).unwrap().len(), 5_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_answered_when_a_record_arrives() {
    let broker = TestBroker::start();
    broker.create("events", 2, &[]).await;
    let consumer: BaseConsumer = broker.client(&[
        ("group.id", "reader"),
        ("fetch.wait.max.ms", "20000"),
        ("enable.auto.commit", "false"),
    ]);
    let mut list = TopicPartitionList::new();
    for partition in 0..2 {
        list.add_partition_offset("events", partition, Offset::Offset(0))
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let producer = broker.producer();
    let begin = Instant::now();
    for number in 0..5 {
        assert!(consumer.poll(Duration::from_millis(100)).is_none());
        send(&producer, "events", "key", Some(&number.to_string())).await;
        assert_eq!(value(&read(&consumer, 1)[0]), Some(&*number.to_string()));
    }
    // A single wait would have taken longer than this.
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patient_fetch_waits_until_enough_has_come() {
    let broker = TestBroker::start();
    broker.create("events", 1, &[]).await;
    let producer = broker.producer();
    send(&producer, "events", "first", Some("small")).await;
    let consumer: BaseConsumer = broker.client(&[
        ("group.id", "reader"),
        ("fetch.min.bytes", "5000"),
        ("fetch.wait.max.ms", "25000"),
        ("enable.auto.commit", "false"),
    ]);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("events", 0, Offset::Offset(0))
        .unwrap();
    consumer.assign(&list).unwrap();
    assert!(consumer.poll(Duration::from_millis(300)).is_none());
    send(&producer, "events", "second", Some(&"x".repeat(6_000))).await;
    let messages = read(&consumer, 2);
    assert_eq!((key(&messages[0]), key(&messages[1])), ("first", "second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_of_a_group_share_the_partitions_and_take_over_what_one_leaves() {
    let broker = TestBroker::start();
    broker.create("events", 4, &[]).await;
    let members = [broker.consumer("group"), broker.consumer("group")];
    for member in &members {
        member.subscribe(&["events"]).unwrap();
    }
    let share = |member: &BaseConsumer| -> BTreeSet<i32> {
        let _ = member.poll(Duration::from_millis(10));
        let assignment = member.assignment().unwrap();
        assignment
            .elements()
            .iter()
            .map(|one| one.partition())
            .collect()
    };
    poll("each has two", || {
        let shares = members.each_ref().map(share);
        (shares[0].len() == 2 && shares[1].len() == 2 && shares[0].is_disjoint(&shares[1]))
            .then_some(())
    });
    let groups = members[0]
        .client()
        .fetch_group_list(Some("group"), LIMIT)
        .unwrap();
    let group = &groups.groups()[0];
    assert_eq!((group.state(), group.members().len()), ("Stable", 2));
    let [first, second] = members;
    drop(first);
    poll("the other has all", || {
        (share(&second).len() == 4).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_with_a_name_of_its_own_that_was_killed_reads_on_at_once_when_it_is_back() {
    let broker = TestBroker::start();
    broker.create("events", 2, &[]).await;
    let member = || -> BaseConsumer {
        let consumer: BaseConsumer = broker.client(&[
            ("group.id", "group"),
            ("group.instance.id", "orders"),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            // Far longer than the test waits, so that no partition is reassigned because of a timeout.
            ("session.timeout.ms", "300000"),
        ]);
        consumer.subscribe(&["events"]).unwrap();
        consumer
    };
    let producer = broker.producer();
    send(&producer, "events", "key", Some("1")).await;
    let killed = member();
    assert_eq!(value(&read(&killed, 1)[0]), Some("1"));
    // A static member leaves without a request, as if it had been killed.
    drop(killed);
    assert_eq!(value(&read(&member(), 1)[0]), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_records_and_topic_ids_outlive_a_restart() {
    let broker = TestBroker::start();
    broker.create("events", 1, &[("retention.ms", "-1")]).await;
    let producer = broker.producer();
    for number in 0..3 {
        send(&producer, "events", "key", Some(&number.to_string())).await;
    }
    {
        let consumer = broker.consumer("group");
        consumer.subscribe(&["events"]).unwrap();
        read(&consumer, 2);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("events", 0, Offset::Offset(2))
            .unwrap();
        consumer.commit(&list, CommitMode::Sync).unwrap();
    }
    let broker = broker.restart().await;
    // The same producer continues with its sequence numbers.
    assert_eq!(send(&producer, "events", "key", Some("3")).await, 3);
    let consumer = broker.consumer("group");
    consumer.subscribe(&["events"]).unwrap();
    let rest = read(&consumer, 2);
    assert_eq!((value(&rest[0]), value(&rest[1])), (Some("2"), Some("3")));
    assert_eq!(read(&broker.reader("events", 1), 4).len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_are_found_by_time() {
    let broker = TestBroker::start();
    broker.create("events", 1, &[]).await;
    let producer = broker.producer();
    for time in [100, 300, 200, 400] {
        let record = FutureRecord::to("events")
            .key("key")
            .payload("value")
            .timestamp(time);
        producer.send(record, LIMIT).await.unwrap();
    }
    let consumer: BaseConsumer = broker.client(&[("group.id", "reader")]);
    let at = |time: i64| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("events", 0, Offset::Offset(time))
            .unwrap();
        let found = consumer.offsets_for_times(list, LIMIT).unwrap();
        found.elements()[0].offset()
    };
    assert_eq!(at(0), Offset::Offset(0));
    assert_eq!(at(101), Offset::Offset(1));
    assert_eq!(at(300), Offset::Offset(1));
    assert_eq!(at(301), Offset::Offset(3));
    assert_eq!(at(401), Offset::End);
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_described_altered_widened_and_deleted() {
    let broker = TestBroker::start();
    let admin = broker.admin();
    broker
        .create("events", 2, &[("retention.ms", "1000000")])
        .await;
    let again = NewTopic::new("events", 2, TopicReplication::Fixed(1));
    let wrong = NewTopic::new("wrong", 2, TopicReplication::Fixed(1)).set("retention.msec", "5");
    let copies = NewTopic::new("copies", 2, TopicReplication::Fixed(3));
    let bad = NewTopic::new("no/topic", 2, TopicReplication::Fixed(1));
    let results = admin
        .create_topics(&[again, wrong, copies, bad], &options())
        .await;
    let errors: Vec<_> = results
        .unwrap()
        .into_iter()
        .map(|result| result.unwrap_err().1)
        .collect();
    assert_eq!(
        errors,
        [
            RDKafkaErrorCode::TopicAlreadyExists,
            RDKafkaErrorCode::InvalidConfig,
            RDKafkaErrorCode::InvalidReplicationFactor,
            RDKafkaErrorCode::InvalidTopic,
        ]
    );

    let described = async |name: &str| {
        let topic = ResourceSpecifier::Topic("events");
        let mut results = admin.describe_configs([&topic], &options()).await.unwrap();
        let resource = results.remove(0).unwrap();
        resource.get(name).unwrap().value.clone().unwrap()
    };
    assert_eq!(described("retention.ms").await, "1000000");
    assert_eq!(described("cleanup.policy").await, "delete");
    let alter =
        AlterConfig::new(ResourceSpecifier::Topic("events")).set("max.message.bytes", "900");
    admin
        .alter_configs([&alter], &options())
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(described("max.message.bytes").await, "900");
    assert_eq!(described("retention.ms").await, "-1");
    let refused = broker
        .producer()
        .send(
            FutureRecord::to("events")
                .key("key")
                .payload(&"x".repeat(1_000)),
            LIMIT,
        )
        .await;
    let (error, _) = refused.unwrap_err();
    assert_eq!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge)
    );

    let wider = NewPartitions::new("events", 5);
    admin
        .create_partitions([&wider], &options())
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    let consumer: BaseConsumer = broker.client(&[]);
    let partitions = || {
        let metadata = consumer.fetch_metadata(None, LIMIT).unwrap();
        let topics = metadata.topics();
        let found = topics.iter().find(|topic| topic.name() == "events");
        found.map(|topic| topic.partitions().len())
    };
    assert_eq!(partitions(), Some(5));
    admin
        .delete_topics(&["events"], &options())
        .await
        .unwrap()
        .remove(0)
        .unwrap();
    assert_eq!(partitions(), None);
    broker.create("events", 1, &[]).await;
    assert_eq!(broker.watermarks("events"), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_records_are_not_read_again() {
    let broker = TestBroker::start();
    broker.create("events", 1, &[]).await;
    let producer = broker.producer();
    for number in 0..5 {
        send(&producer, "events", "key", Some(&number.to_string())).await;
    }
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("events", 0, Offset::Offset(3))
        .unwrap();
    broker
        .admin()
        .delete_records(&list, &options())
        .await
        .unwrap();
    assert_eq!(broker.watermarks("events"), (3, 5));
    let broker = broker.restart().await;
    assert_eq!(broker.watermarks("events"), (3, 5));
    let messages = read(&broker.reader("events", 1), 2);
    assert_eq!(
        (value(&messages[0]), value(&messages[1])),
        (Some("3"), Some("4"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_topic_keeps_the_newest_of_each_key_and_lets_tombstones_go() {
    let broker = TestBroker::start();
    let settings = [
        ("cleanup.policy", "compact"),
        ("max.compaction.lag.ms", "1"),
        ("delete.retention.ms", "0"),
    ];
    broker.create("keys", 1, &settings).await;
    let producer = broker.producer();
    for number in 0..3 {
        send(&producer, "keys", "a", Some(&format!("a{number}"))).await;
        send(&producer, "keys", "b", Some(&format!("b{number}"))).await;
    }
    send(&producer, "keys", "a", None).await;
    send(&producer, "keys", "end", Some("end")).await;
    let all = || {
        let mut left = Vec::new();
        let reader = broker.reader("keys", 1);
        loop {
            let message = read(&reader, 1).remove(0);
            let (key, value) = (key(&message).to_owned(), value(&message).map(str::to_owned));
            let is_end = key == "end";
            left.push((key, value));
            if is_end {
                return left;
            }
        }
    };
    let some = |text: &str| Some(text.to_owned());
    let wanted = vec![
        ("b".to_owned(), some("b2")),
        ("end".to_owned(), some("end")),
    ];
    poll("the old values and the tombstone are gone", || {
        (all() == wanted).then_some(())
    });
    assert_eq!(broker.watermarks("keys").1, 8);
    let broker = broker.restart().await;
    assert_eq!(send(&producer, "keys", "c", Some("c")).await, 8);
    assert_eq!(broker.watermarks("keys").1, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_past_their_retention_go_and_offsets_go_on() {
    let broker = TestBroker::start();
    broker
        .create("events", 1, &[("retention.ms", "60000")])
        .await;
    let producer = broker.producer();
    let old = FutureRecord::to("events")
        .key("key")
        .payload("old")
        .timestamp(1);
    producer.send(old, LIMIT).await.unwrap();
    send(&producer, "events", "key", Some("young")).await;
    poll("the old record is gone", || {
        (broker.watermarks("events") == (1, 2)).then_some(())
    });
    assert_eq!(
        value(&read(&broker.reader("events", 1), 1)[0]),
        Some("young")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_producer_is_refused_at_once() {
    let broker = TestBroker::start();
    let refused = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = broker.client(&[("transactional.id", "transfer")]);
        producer.init_transactions(LIMIT)
    });
    let Err(KafkaError::Transaction(error)) = refused.await.unwrap() else {
        panic!("transactions do not work here");
    };
    assert_eq!(
        error.code(),
        RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_topic_is_not_made_by_asking_for_it() {
    let broker = TestBroker::start();
    let consumer: BaseConsumer = broker.client(&[]);
    let metadata = consumer.fetch_metadata(Some("nothing"), LIMIT).unwrap();
    assert!(metadata.topics()[0].error().is_some());
    assert!(
        consumer
            .fetch_metadata(None, LIMIT)
            .unwrap()
            .topics()
            .is_empty()
    );
}
