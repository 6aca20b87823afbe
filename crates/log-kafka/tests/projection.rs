//! The projection runner on a real Kafka: a rebalance during a slow write must not lose messages, and a broker that
//! does not answer must not prevent the end.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{FutureProducer, FutureRecord},
};
use tandem_backends::{KafkaOptions, eventually, require};
use tandem_event_path::{
    log::Log,
    projection::{Projection, run_projection},
    sealing::Sealer,
    store::{StoreError, WriteEpoch},
};
use tandem_log_kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic};
use tandem_model::message::{Message, Position, Rejection};
use tandem_runtime::shutdown::Shutdown;
use tandem_store_redb::{Codec, EmbeddedDeadLetters, EmbeddedStore};
use tokio::sync::watch;

const TOPIC: &str = "consumer.test";
const DEAD_LETTER_TOPIC: &str = "consumer.test.DLT";
const NAME: &str = "kept";
const STORE: &str = "test";
const PARTITIONS: i32 = 6;
const LIMIT: Duration = Duration::from_secs(60);

fn text(message: &Message) -> Result<String, Rejection> {
    let body = message.payload.clone().unwrap_or_default();
    String::from_utf8(body).map_err(|error| Rejection::new(error.to_string()))
}

/// Keeps its messages. Does not write while the gate is closed.
struct Kept {
    taken: Mutex<BTreeSet<String>>,
    /// How many writes have begun.
    begun: watch::Sender<u32>,
    open: watch::Sender<bool>,
}

impl Kept {
    fn new() -> Self {
        Self {
            taken: Mutex::default(),
            begun: watch::channel(0).0,
            open: watch::channel(true).0,
        }
    }

    fn has(&self, wanted: &BTreeSet<String>) -> bool {
        wanted.is_subset(&self.taken.lock().unwrap())
    }
}

#[async_trait]
impl Projection for Kept {
    type Item = String;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<String, Rejection> {
        text(message)
    }

    fn subject<'a>(&self, item: &'a String) -> &'a str {
        item
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

/// Applies its messages early, and confirms them when the gate is open, unless its store has lost them.
#[derive(Default)]
struct Shows {
    shown: Mutex<BTreeSet<String>>,
    applied: Mutex<BTreeSet<String>>,
    has_lost: AtomicBool,
    open: watch::Sender<bool>,
    /// The call that the store does not answer.
    away_for: Mutex<Option<&'static str>>,
    /// How often that call was made.
    asked_in_vain: AtomicUsize,
}

impl Shows {
    fn without(call: &'static str) -> Self {
        let shows = Self::default();
        shows.open.send_replace(true);
        *shows.away_for.lock().unwrap() = Some(call);
        shows
    }

    fn ask_for(&self, call: &str) -> Result<(), StoreError> {
        if *self.away_for.lock().unwrap() == Some(call) {
            self.asked_in_vain.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::Unavailable("as the test wants it".to_owned()));
        }
        Ok(())
    }
}

#[async_trait]
impl Projection for Shows {
    type Item = String;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<String, Rejection> {
        text(message)
    }

    fn subject<'a>(&self, item: &'a String) -> &'a str {
        item
    }

    async fn apply(&self, items: Vec<(Position, String)>) -> Result<(), StoreError> {
        let items = items.into_iter().map(|(_, item)| item);
        self.applied.lock().unwrap().extend(items);
        Ok(())
    }

    async fn apply_early(
        &self,
        items: Vec<(Position, String)>,
    ) -> Result<Option<WriteEpoch>, StoreError> {
        self.ask_for("show")?;
        let items = items.into_iter().map(|(_, item)| item);
        self.shown.lock().unwrap().extend(items);
        Ok(Some(WriteEpoch("first".to_owned())))
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        assert_eq!(epoch.0, "first");
        self.ask_for("keep")?;
        let mut open = self.open.subscribe();
        open.wait_for(|open| *open).await.unwrap();
        Ok(!self.has_lost.load(Ordering::SeqCst))
    }
}

/// Publishes one message to every partition.
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

/// The projection's consumer group.
fn group() -> String {
    format!("{NAME}.{STORE}")
}

/// How many messages the projection's group has committed.
async fn committed(server: &tandem_backends::Kafka) -> i64 {
    let asking: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.bootstrap())
        .set("group.id", group())
        .create()
        .unwrap();
    let asked = tokio::task::spawn_blocking(move || {
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_range(TOPIC, 0, PARTITIONS - 1);
        asking.committed_offsets(partitions, LIMIT).unwrap()
    });
    let offsets = asked.await.unwrap().to_topic_map();
    offsets
        .values()
        .filter_map(|offset| offset.to_raw())
        .filter(|offset| *offset > 0)
        .sum()
}

/// A projection that runs on its own Kafka.
struct Running<P> {
    projection: Arc<P>,
    producer: FutureProducer,
    shutdown: Shutdown,
    server: tandem_backends::Kafka,
    _directory: tempfile::TempDir,
}

impl<P: Projection> Running<P> {
    async fn start(projection: P) -> Self {
        let server = tandem_backends::Kafka::start(KafkaOptions::default())
            .await
            .unwrap();
        let shutdown = Shutdown::new();
        let settings = KafkaSettings {
            partitions: PARTITIONS,
            replication: 1,
            ..KafkaSettings::of(server.bootstrap())
        };
        let topics = vec![Topic::log(TOPIC), Topic::log(DEAD_LETTER_TOPIC)];
        let kafka = Kafka::connect(settings, topics, &shutdown).unwrap();
        let log: Arc<dyn Log> = Arc::new(kafka);
        assert!(log.ready().await);
        let directory = tempfile::tempdir().unwrap();
        let file = EmbeddedStore::open(
            directory.path().join("letters.redb"),
            Codec::sealed(&Sealer::new(&[7; 32])),
        )
        .unwrap();
        let letters = Arc::new(EmbeddedDeadLetters::open(file).await.unwrap());
        let projection = Arc::new(projection);
        run_projection(
            Arc::clone(&projection),
            STORE,
            TOPIC,
            &log,
            letters,
            &shutdown,
        )
        .unwrap();
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", server.bootstrap())
            .create()
            .unwrap();
        Self {
            projection,
            producer,
            shutdown,
            server,
            _directory: directory,
        }
    }

    /// Requests shutdown of the projection, and waits for it.
    async fn end(&self) {
        let ended = self.shutdown.drain(Duration::from_secs(20)).await;
        assert_eq!(ended, Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_answers_nothing_does_not_keep_a_projection_from_ending() {
    require!(kafka);
    let running = Running::start(Kept::new()).await;
    let sent = publish(&running.producer, "last").await;
    eventually("it is written", async || running.projection.has(&sent)).await;
    // The commit for the written messages is still to come.
    running.server.pause(0).unwrap();
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_go_and_come_back_during_a_slow_write_are_read_again() {
    require!(kafka);
    let running = Running::start(Kept::new()).await;
    let Running {
        projection: kept,
        producer,
        server,
        ..
    } = &running;
    let first = publish(producer, "first").await;
    eventually("all partitions are read", async || kept.has(&first)).await;

    // A write is slow, so that all partitions are paused.
    kept.open.send_replace(false);
    let begun = *kept.begun.borrow();
    publish(producer, "slow").await;
    eventually("the slow write begins", async || {
        *kept.begun.borrow() > begun
    })
    .await;
    // Meanwhile another member joins and gets some of the partitions.
    let other: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", server.bootstrap())
        .set("group.id", group())
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
    // It gives them back when the write is done.
    kept.open.send_replace(true);
    eventually("the slow write ends", async || {
        kept.taken
            .lock()
            .unwrap()
            .iter()
            .any(|item| item.starts_with("slow"))
    })
    .await;
    drop(other);
    let last = publish(producer, "last").await;
    eventually("all partitions are read again", async || kept.has(&last)).await;
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_readers_see_is_committed_when_it_is_kept_and_written_again_when_it_was_lost() {
    require!(kafka);
    let running = Running::start(Shows::default()).await;
    let (projection, producer) = (&running.projection, &running.producer);
    let sent = publish(producer, "seen").await;
    eventually("it is shown", async || {
        sent.is_subset(&projection.shown.lock().unwrap())
    })
    .await;
    // So many queries take longer than keeping the messages and committing.
    for _ in 0..20 {
        assert_eq!(committed(&running.server).await, 0);
    }
    projection.open.send_replace(true);
    eventually("it is committed", async || {
        committed(&running.server).await == i64::from(PARTITIONS)
    })
    .await;
    assert!(projection.applied.lock().unwrap().is_empty());

    projection.has_lost.store(true, Ordering::SeqCst);
    let lost = publish(producer, "lost").await;
    eventually("it is written again", async || {
        lost.is_subset(&projection.applied.lock().unwrap())
    })
    .await;
    running.end().await;
    assert_eq!(committed(&running.server).await, 2 * i64::from(PARTITIONS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_ends_while_the_store_is_away_commits_nothing_that_is_not_kept() {
    require!(kafka);
    for call in ["show", "keep"] {
        let running = Running::start(Shows::without(call)).await;
        publish(&running.producer, "unkept").await;
        eventually("the store is asked", async || {
            running.projection.asked_in_vain.load(Ordering::SeqCst) > 1
        })
        .await;
        running.end().await;
        assert_eq!(committed(&running.server).await, 0, "{call}");
    }
}
