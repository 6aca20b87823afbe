//! A broker in this process, and librdkafka clients for it.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(dead_code)]

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer},
    message::OwnedMessage,
    producer::{FutureProducer, FutureRecord},
};
use tandem_embedded_broker::{Settings, open};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The time limit of every step.
pub const LIMIT: Duration = Duration::from_secs(30);

/// A broker with its own directory.
pub struct TestBroker {
    pub port: u16,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
    directory: TempDir,
}

impl TestBroker {
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), 0)
    }

    fn start_in(directory: TempDir, port: u16) -> Self {
        let settings = Settings {
            port,
            data_dir: directory.path().join("broker"),
            cleaning_interval: Duration::from_millis(50),
        };
        let broker = open(&settings).unwrap();
        let port = broker.port();
        let stop = CancellationToken::new();
        let serving = broker.serve(stop.clone());
        Self {
            port,
            stop,
            serving: Some(tokio::spawn(async { serving.await.unwrap() })),
            directory,
        }
    }

    pub fn file(&self) -> PathBuf {
        self.directory.path().join("broker").join("log.redb")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub async fn stop(mut self) -> TempDir {
        self.stop.cancel();
        self.serving.take().unwrap().await.unwrap();
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }

    pub async fn restart(self) -> Self {
        let port = self.port;
        Self::start_in(self.stop().await, port)
    }

    pub fn config(&self, properties: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", format!("127.0.0.1:{}", self.port))
            .set("reconnect.backoff.ms", "10")
            .set("reconnect.backoff.max.ms", "200");
        for (name, value) in properties {
            config.set(*name, *value);
        }
        config
    }

    pub fn client<T: FromClientConfig>(&self, properties: &[(&str, &str)]) -> T {
        self.config(properties).create().unwrap()
    }

    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.client(&[])
    }

    pub fn producer(&self) -> FutureProducer {
        self.client(&[
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("linger.ms", "0"),
        ])
    }

    pub fn consumer(&self, group: &str) -> BaseConsumer {
        self.client(&[
            ("group.id", group),
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
        ])
    }

    pub async fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        let results = self
            .admin()
            .create_topics(&[new], &options())
            .await
            .unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    /// The first offset and the end of partition 0.
    pub fn watermarks(&self, topic: &str) -> (i64, i64) {
        let consumer: BaseConsumer = self.client(&[]);
        consumer.fetch_watermarks(topic, 0, LIMIT).unwrap()
    }

    /// A reader of a topic's partitions, each from its beginning.
    pub fn reader(&self, topic: &str, partitions: i32) -> BaseConsumer {
        let consumer: BaseConsumer = self.client(&[
            ("group.id", "unused"),
            ("enable.auto.commit", "false"),
            ("enable.partition.eof", "false"),
        ]);
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        consumer
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub fn options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(LIMIT))
        .operation_timeout(Some(LIMIT))
}

/// Publishes one record to partition 0. Returns its offset.
pub async fn send(producer: &FutureProducer, topic: &str, key: &str, value: Option<&str>) -> i64 {
    let mut record = FutureRecord::<str, str>::to(topic).key(key).partition(0);
    record.payload = value;
    let delivery = producer.send(record, LIMIT).await.unwrap();
    delivery.offset
}

/// Reads this many messages.
#[track_caller]
pub fn read(consumer: &BaseConsumer, count: usize) -> Vec<OwnedMessage> {
    let mut messages = Vec::new();
    poll("the messages are read", || {
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            messages.push(message.unwrap().detach());
        }
        (messages.len() >= count).then_some(())
    });
    messages
}

pub fn key(message: &OwnedMessage) -> &str {
    std::str::from_utf8(message.key().unwrap()).unwrap()
}

pub fn value(message: &OwnedMessage) -> Option<&str> {
    message
        .payload()
        .map(|value| std::str::from_utf8(value).unwrap())
}

/// Repeats a check until it gives a result.
#[track_caller]
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begin.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
