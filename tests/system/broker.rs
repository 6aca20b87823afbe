//! The embedded broker, from the view of a Kafka client.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tandem_backends::free_port;
use tempfile::TempDir;

use crate::support::{LIMIT, Process, Signal, poll, tandem_command};

const TOPIC: &str = "accounts.customer.change";
const PARTITIONS: i32 = 6;

struct Broker {
    process: Process,
    port: u16,
}

impl Broker {
    fn start(directory: &Path) -> Self {
        Self::start_on(free_port().unwrap(), directory)
    }

    fn start_on(port: u16, directory: &Path) -> Self {
        let process = Process::start(
            tandem_command()
                .args(["broker", "--port", &port.to_string(), "--data-dir"])
                .arg(directory),
        );
        let broker = Self { process, port };
        poll("the broker answers", || {
            broker
                .client::<BaseConsumer>(&[])
                .fetch_metadata(None, Duration::from_secs(1))
                .ok()
        });
        broker
    }

    fn client<T: rdkafka::config::FromClientConfig>(&self, properties: &[(&str, &str)]) -> T {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", format!("127.0.0.1:{}", self.port))
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "200");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config.create().unwrap()
    }

    fn producer(&self) -> FutureProducer {
        self.client(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", "0"),
            ("message.timeout.ms", "30000"),
        ])
    }

    fn consumer(&self, group: &str) -> BaseConsumer {
        self.client(&[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
        ])
    }

    async fn create_topic(&self) {
        let admin: AdminClient<DefaultClientContext> = self.client(&[]);
        let topic =
            NewTopic::new(TOPIC, PARTITIONS, TopicReplication::Fixed(1)).set("retention.ms", "-1");
        let results = admin
            .create_topics(
                &[topic],
                &AdminOptions::new().operation_timeout(Some(LIMIT)),
            )
            .await
            .unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

async fn produce(producer: &FutureProducer, key: &str, number: usize) {
    let value = number.to_string();
    let record =
        FutureRecord::to(TOPIC)
            .key(key)
            .payload(&value)
            .headers(OwnedHeaders::new().insert(Header {
                key: "ce_type",
                value: Some("CustomerChangeEvent"),
            }));
    producer.send(record, LIMIT).await.unwrap();
}

/// Reads until `count` records of the topic were seen. For each key, returns the numbers in the order of reading.
#[track_caller]
fn read(consumer: &BaseConsumer, count: usize) -> BTreeMap<String, Vec<usize>> {
    let mut seen: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut total = 0;
    poll("the records are read", || {
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            let record = record.unwrap();
            let key = String::from_utf8(record.key().unwrap().to_vec()).unwrap();
            let number = std::str::from_utf8(record.payload().unwrap())
                .unwrap()
                .parse()
                .unwrap();
            let header = record.headers().unwrap().get(0);
            assert_eq!(
                (header.key, header.value),
                ("ce_type", Some(&b"CustomerChangeEvent"[..]))
            );
            seen.entry(key).or_default().push(number);
            total += 1;
        }
        (total >= count).then_some(())
    });
    seen
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broker");
    (directory, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_read_in_order_per_key_with_their_headers() {
    let (_directory, path) = directory();
    let broker = Broker::start(&path);
    broker.create_topic().await;
    let producer = broker.producer();
    for number in 0..100 {
        produce(&producer, &format!("customer-{}", number % 10), number).await;
    }

    let consumer = broker.consumer("reader");
    consumer.subscribe(&[TOPIC]).unwrap();
    let seen = read(&consumer, 100);

    assert_eq!(seen.len(), 10);
    for (index, numbers) in seen.values().enumerate() {
        assert_eq!(
            *numbers,
            (0..10).map(|step| step * 10 + index).collect::<Vec<_>>()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_offsets_and_records_outlive_a_restart() {
    let (_directory, path) = directory();
    let mut broker = Broker::start(&path);
    broker.create_topic().await;
    produce(&broker.producer(), "customer", 1).await;
    {
        let consumer = broker.consumer("reader");
        consumer.subscribe(&[TOPIC]).unwrap();
        read(&consumer, 1);
        consumer.commit_consumer_state(CommitMode::Sync).unwrap();
    }

    broker.process.signal(Signal::TERM);
    assert!(broker.process.wait_for_end(LIMIT).success());
    let broker = Broker::start_on(broker.port, &path);
    produce(&broker.producer(), "customer", 2).await;

    let again = broker.consumer("reader");
    again.subscribe(&[TOPIC]).unwrap();
    assert_eq!(read(&again, 1)["customer"], [2]);
    let anew = broker.consumer("another");
    anew.subscribe(&[TOPIC]).unwrap();
    assert_eq!(read(&anew, 2)["customer"], [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_records_outlive_a_kill_and_none_is_doubled() {
    let (_directory, path) = directory();
    let mut broker = Broker::start(&path);
    broker.create_topic().await;
    let producer = broker.producer();
    let is_enough = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let is_enough = Arc::clone(&is_enough);
        async move {
            // Keeps writing until the last kill, however fast the machine is.
            let mut written = 0;
            while !is_enough.load(Ordering::Relaxed) {
                produce(&producer, "customer", written).await;
                written += 1;
            }
            written
        }
    });
    for _ in 0..10 {
        let before = high_watermarks(&broker);
        poll("the producer goes on", || {
            (high_watermarks(&broker) > before + 20).then_some(())
        });
        broker.process.signal(Signal::KILL);
        broker.process.wait_for_end(LIMIT);
        broker = Broker::start_on(broker.port, &path);
    }
    is_enough.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();

    let consumer = broker.consumer("reader");
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    assert_eq!(
        read(&consumer, written)["customer"],
        (0..written).collect::<Vec<_>>()
    );
    assert_eq!(high_watermarks(&broker), i64::try_from(written).unwrap());
}

fn high_watermarks(broker: &Broker) -> i64 {
    let consumer: BaseConsumer = broker.client(&[]);
    (0..PARTITIONS)
        .map(|partition| {
            consumer
                .fetch_watermarks(TOPIC, partition, LIMIT)
                .unwrap()
                .1
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_fetch_is_answered_when_a_record_arrives() {
    let (_directory, path) = directory();
    let broker = Broker::start(&path);
    broker.create_topic().await;
    // One fetch may wait for five seconds. Only a wake-up can deliver five records in less.
    let consumer: BaseConsumer = broker.client(&[
        ("group.id", "reader"),
        ("enable.auto.commit", "false"),
        ("fetch.wait.max.ms", "5000"),
    ]);
    let mut partitions = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        partitions
            .add_partition_offset(TOPIC, partition, Offset::Offset(0))
            .unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let producer = broker.producer();
    // The first fetches may not request all partitions yet.
    produce(&producer, "customer", 0).await;
    read(&consumer, 1);

    let begin = Instant::now();
    for number in 1..=5 {
        assert!(consumer.poll(Duration::from_millis(100)).is_none());
        produce(&producer, "customer", number).await;
        assert_eq!(read(&consumer, 1)["customer"], [number]);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "{:?}",
        begin.elapsed()
    );
}

#[test]
fn the_log_of_an_earlier_version_is_left_alone_with_a_sentence_that_says_what_to_do() {
    let (_directory, path) = directory();
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("broker.db"), "SQLite format 3").unwrap();

    let answer = tandem_command()
        .args(["broker", "--port", "9092", "--data-dir"])
        .arg(&path)
        .output()
        .unwrap();

    assert!(!answer.status.success());
    let errors = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("broker.db") && errors.contains("earlier version"),
        "{errors}"
    );
    assert!(!path.join("log.redb").exists());
}

#[test]
fn a_taken_port_is_one_sentence_that_names_it() {
    let (_directory, path) = directory();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    let answer = tandem_command()
        .args(["broker", "--port", &port, "--data-dir"])
        .arg(&path)
        .output()
        .unwrap();

    assert!(!answer.status.success());
    let errors = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(
        errors.contains("--port") && errors.contains(&port),
        "{errors}"
    );
}
