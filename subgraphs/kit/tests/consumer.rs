//! The runner of projections on a real Kafka: what a rebalance in the middle of a slow write must not do, and what a broker
//! that answers nothing must not keep it from.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use tandem_backends::{KafkaOptions, require};
use tandem_kit::{
    consumer::{Projection, run_projection},
    kafka::{
        connection::Kafka,
        message::{Message, Position, Rejection},
        settings::KafkaSettings,
        topics::Topic,
    },
    sealing::Sealer,
    shutdown::Shutdown,
    store::{
        StoreError,
        embedded::{Codec, EmbeddedDeadLetters, EmbeddedStore},
    },
};
use tokio::sync::watch;

const TOPIC: &str = "consumer.test";
const DEAD_LETTER_TOPIC: &str = "consumer.test.DLT";
const PARTITIONS: i32 = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// Keeps what it is given; writes nothing while the gate is shut.
struct Kept {
    taken: Mutex<BTreeSet<String>>,
    /// How many writes were begun.
    begun: watch::Sender<u32>,
    open: watch::Sender<bool>,
}

impl Kept {
    fn has(&self, wanted: &BTreeSet<String>) -> bool {
        wanted.is_subset(&self.taken.lock().unwrap())
    }
}

#[async_trait]
impl Projection for Kept {
    type Item = String;

    fn name(&self) -> &'static str {
        "kept"
    }

    fn decode(&self, message: &Message) -> Result<String, Rejection> {
        let body = message.payload.clone().unwrap_or_default();
        String::from_utf8(body).map_err(|error| Rejection::new(error.to_string()))
    }

    async fn apply(&self, items: Vec<(Position, String)>) -> Result<(), StoreError> {
        self.begun.send_modify(|begun| *begun += 1);
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        let items = items.into_iter().map(|(_, item)| item);
        self.taken.lock().unwrap().extend(items);
        Ok(())
    }
}

/// Sends one message to every partition.
async fn publish(producer: &FutureProducer, round: &str) -> BTreeSet<String> {
    let mut sent = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let body = format!("{round}-{partition}");
        let record = FutureRecord::to(TOPIC)
            .key(&body)
            .payload(&body)
            .partition(partition);
        producer.send(record, LIMIT).await.unwrap();
        sent.insert(body);
    }
    sent
}

async fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let limit = tokio::time::Instant::now() + LIMIT;
    while !is_so() {
        assert!(tokio::time::Instant::now() < limit, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A projection that runs on a Kafka of its own.
struct Running {
    kept: Arc<Kept>,
    producer: FutureProducer,
    shutdown: Shutdown,
    server: tandem_backends::Kafka,
    _directory: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let server = tandem_backends::Kafka::start(KafkaOptions::default())
            .await
            .unwrap();
        let shutdown = Shutdown::new();
        let settings = KafkaSettings {
            brokers: server.bootstrap(),
            properties: Vec::new(),
            partitions: PARTITIONS,
            replication: 1,
            retention_ms: -1,
        };
        let topics = vec![Topic::log(TOPIC), Topic::log(DEAD_LETTER_TOPIC)];
        let kafka = Kafka::connect(settings, topics, &shutdown).unwrap();
        assert!(kafka.ready().await);
        let directory = tempfile::tempdir().unwrap();
        let file = EmbeddedStore::open(
            directory.path().join("letters.redb"),
            Codec::sealed(&Sealer::new(&[7; 32])),
        )
        .unwrap();
        let letters = Arc::new(EmbeddedDeadLetters::open(file).await.unwrap());
        let kept = Arc::new(Kept {
            taken: Mutex::default(),
            begun: watch::channel(0).0,
            open: watch::channel(true).0,
        });
        run_projection(
            Arc::clone(&kept),
            "test",
            TOPIC,
            DEAD_LETTER_TOPIC,
            &kafka,
            letters,
            &shutdown,
        )
        .unwrap();
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", server.bootstrap())
            .create()
            .unwrap();
        Self {
            kept,
            producer,
            shutdown,
            server,
            _directory: directory,
        }
    }

    /// Asks the projection to end, and waits for it.
    async fn end(&self) {
        let ended = self.shutdown.drain(Duration::from_secs(20)).await;
        assert_eq!(ended, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_nothing_does_not_keep_a_projection_from_ending() {
    require!(kafka);
    let running = Running::start().await;
    let sent = publish(&running.producer, "last").await;
    eventually("it is written", || running.kept.has(&sent)).await;
    // The commit of what was written is still to come.
    running.server.pause(0).unwrap();
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_go_and_come_back_during_a_slow_write_are_read_again() {
    require!(kafka);
    let running = Running::start().await;
    let Running {
        kept,
        producer,
        server,
        ..
    } = &running;
    let first = publish(producer, "first").await;
    eventually("all partitions are read", || kept.has(&first)).await;

    // A write that is slow, so that all partitions are paused ...
    kept.open.send_replace(false);
    let begun = *kept.begun.borrow();
    publish(producer, "slow").await;
    eventually("the slow write begins", || *kept.begun.borrow() > begun).await;
    // ... while another member joins and takes some of them ...
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.bootstrap())
        .set("group.id", "kept.test")
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    other.subscribe(&[TOPIC]).unwrap();
    let other = tokio::task::spawn_blocking(move || {
        let limit = std::time::Instant::now() + LIMIT;
        while other.assignment().unwrap().count() == 0 {
            assert!(std::time::Instant::now() < limit, "nothing was given away");
            let _ = other.poll(Duration::from_millis(100));
        }
        other
    })
    .await
    .unwrap();
    // ... and gives them back when the write is done.
    kept.open.send_replace(true);
    eventually("the slow write ends", || {
        kept.taken
            .lock()
            .unwrap()
            .iter()
            .any(|item| item.starts_with("slow"))
    })
    .await;
    drop(other);
    let last = publish(producer, "last").await;
    eventually("all partitions are read again", || kept.has(&last)).await;
    running.end().await;
}
