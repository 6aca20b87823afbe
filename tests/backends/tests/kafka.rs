//! The kit's Kafka clusters start, lose a broker, pause, and require a password where they should.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tandem_backends::{Kafka, KafkaOptions, require, solo};

const LIMIT: Duration = Duration::from_secs(60);
const TOPIC: &str = "proof";

fn config(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.extend(kafka.client_properties());
    config.set("log_level", "0");
    config
}

async fn create_topic(kafka: &Kafka, replicas: i32) {
    let admin: AdminClient<DefaultClientContext> = config(kafka).create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(replicas));
    let results = admin
        .create_topics(
            [&topic],
            &AdminOptions::new().operation_timeout(Some(LIMIT)),
        )
        .await
        .unwrap();
    assert_eq!(results, [Ok(TOPIC.to_owned())]);
}

fn producer(kafka: &Kafka) -> FutureProducer {
    config(kafka)
        .set("enable.idempotence", "true")
        .create()
        .unwrap()
}

async fn produce(producer: &FutureProducer, body: &str) {
    let record = FutureRecord::to(TOPIC).key("1").payload(body);
    producer.send(record, Timeout::After(LIMIT)).await.unwrap();
}

/// Reads the topic's only partition from its beginning until this many records were seen or the time is over.
async fn read(kafka: &Kafka, count: usize, limit: Duration) -> Vec<String> {
    // A commit in flight when the broker dies would block its consumer for ever (librdkafka issue 3740).
    let consumer: BaseConsumer = config(kafka)
        .set("group.id", "proof")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut partition = TopicPartitionList::new();
    partition
        .add_partition_offset(TOPIC, 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&partition).unwrap();
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + limit;
        let mut bodies = Vec::new();
        while bodies.len() < count && Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                bodies.push(String::from_utf8(message.payload().unwrap().to_vec()).unwrap());
            }
        }
        bodies
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn one_node_comes_back_with_its_records_after_a_kill() {
    require!(kafka);
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    create_topic(&kafka, 1).await;
    let producer = producer(&kafka);
    produce(&producer, "before").await;
    kafka.kill(0).unwrap();
    kafka.start_again(0).await.unwrap();
    produce(&producer, "after").await;
    assert_eq!(read(&kafka, 2, LIMIT).await, ["before", "after"]);
}

#[tokio::test]
async fn three_nodes_take_records_when_a_broker_is_killed() {
    require!(kafka);
    let _turn = solo().await.unwrap();
    let kafka = Kafka::start(KafkaOptions {
        nodes: 3,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    create_topic(&kafka, 3).await;
    let producer = producer(&kafka);
    produce(&producer, "before").await;

    let leader = leader(&kafka).await;
    kafka.kill(leader).unwrap();
    produce(&producer, "without it").await;
    kafka.start_again(leader).await.unwrap();
    produce(&producer, "with it again").await;
    assert_eq!(
        read(&kafka, 3, LIMIT).await,
        ["before", "without it", "with it again"]
    );
}

async fn leader(kafka: &Kafka) -> usize {
    let consumer: BaseConsumer = config(kafka).create().unwrap();
    let metadata = tokio::task::spawn_blocking(move || consumer.fetch_metadata(Some(TOPIC), LIMIT))
        .await
        .unwrap()
        .unwrap();
    let leader = metadata.topics()[0].partitions()[0].leader();
    (0..kafka.nodes())
        .find(|node| Kafka::broker_id(*node) == leader)
        .unwrap()
}

#[tokio::test]
async fn a_paused_broker_holds_a_record_until_it_goes_on() {
    require!(kafka);
    let kafka = Kafka::start(KafkaOptions::default()).await.unwrap();
    create_topic(&kafka, 1).await;
    let producer = producer(&kafka);
    produce(&producer, "before").await;
    kafka.pause(0).unwrap();
    let sending = tokio::spawn(async move { produce(&producer, "through the pause").await });
    assert!(read(&kafka, 1, Duration::from_secs(2)).await.is_empty());
    assert!(!sending.is_finished());
    kafka.resume(0).unwrap();
    sending.await.unwrap();
    assert_eq!(
        read(&kafka, 2, LIMIT).await,
        ["before", "through the pause"]
    );
}

/// Records whether the broker refused the password.
#[derive(Clone, Default)]
struct Refusals(Arc<AtomicBool>);

impl ClientContext for Refusals {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, error: KafkaError, _: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Authentication) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Refusals {}

#[tokio::test]
async fn sasl_ssl_lets_in_who_has_the_password_and_nobody_else() {
    require!(kafka);
    let kafka = Kafka::start(KafkaOptions {
        sasl_ssl: true,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    create_topic(&kafka, 1).await;
    produce(&producer(&kafka), "let in").await;
    assert_eq!(read(&kafka, 1, LIMIT).await, ["let in"]);

    let refusals = Refusals::default();
    let consumer: BaseConsumer<Refusals> = config(&kafka)
        .set("group.id", "proof")
        .set("sasl.password", "wrong")
        .create_with_context(refusals.clone())
        .unwrap();
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + LIMIT;
        while !refusals.0.load(Ordering::Relaxed) {
            assert!(
                Instant::now() < deadline,
                "nobody said that the password is wrong"
            );
            // librdkafka reports errors to the caller that polls.
            assert!(!matches!(
                consumer.poll(Duration::from_millis(200)),
                Some(Ok(_))
            ));
        }
    })
    .await
    .unwrap();

    let stranger: BaseConsumer = config(&kafka).remove_authority().create().unwrap();
    let answer =
        tokio::task::spawn_blocking(move || stranger.fetch_metadata(None, Duration::from_secs(3)))
            .await
            .unwrap();
    assert!(
        answer.is_err(),
        "a certificate that nobody vouches for must not be trusted"
    );
}

/// Makes a configuration trust only the system's authorities.
trait RemoveAuthority {
    fn remove_authority(&mut self) -> &mut Self;
}

impl RemoveAuthority for ClientConfig {
    fn remove_authority(&mut self) -> &mut Self {
        self.remove("ssl.ca.location");
        self
    }
}
