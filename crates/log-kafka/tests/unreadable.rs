//! What a reader reports about records that it cannot read although Kafka answers. librdkafka's own mock cluster
//! refuses every fetch.
#![allow(clippy::disallowed_methods, reason = "tests wait for a real server")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rdkafka::{
    ClientConfig,
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
    types::{RDKafkaApiKey, RDKafkaRespErr},
};
use tandem_backends::eventually;
use tandem_event_path::{
    log::{Arrival, Attention, Log, LogError, Offsets},
    projection::{Projection, run_projection},
    sealing::Sealer,
    store::StoreError,
};
use tandem_log_kafka::{connection::Kafka, settings::KafkaSettings};
use tandem_model::message::{Message, Position, Rejection};
use tandem_runtime::shutdown::Shutdown;
use tandem_store_redb::{Codec, EmbeddedDeadLetters, EmbeddedStore};

const TOPIC: &str = "unreadable.test";
const LIMIT: Duration = Duration::from_secs(60);
/// More than any reader requests.
const FETCHES: usize = 100_000;
const REASON: &str = "partition 0 of unreadable.test cannot be read: ";

/// A cluster with one topic of one partition, with a record that cannot be fetched.
fn refusing() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap_servers())
        .create()
        .unwrap();
    producer
        .send(BaseRecord::to(TOPIC).key("1").payload("there"))
        .unwrap();
    producer.flush(LIMIT).unwrap();
    let refusal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    cluster.request_errors(RDKafkaApiKey::Fetch, &vec![refusal; FETCHES]);
    cluster
}

fn connected(
    cluster: &MockCluster<'_, DefaultProducerContext>,
    shutdown: &Shutdown,
) -> Arc<dyn Log> {
    let settings = KafkaSettings::of(cluster.bootstrap_servers());
    Arc::new(Kafka::connect(settings, Vec::new(), shutdown).unwrap())
}

struct Nothing;

#[async_trait]
impl Projection for Nothing {
    type Item = String;

    fn name(&self) -> &'static str {
        "nothing"
    }

    fn decode(&self, _: &Message) -> Result<String, Rejection> {
        Ok("a message".to_owned())
    }

    fn subject<'a>(&self, item: &'a String) -> &'a str {
        item
    }

    async fn apply(&self, _: Vec<(Position, String)>) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_tells_of_an_error_that_lasts() {
    let (cluster, shutdown) = (refusing(), Shutdown::new());
    let log = connected(&cluster, &shutdown);
    let directory = tempfile::tempdir().unwrap();
    let file = EmbeddedStore::open(
        directory.path().join("letters.redb"),
        Codec::sealed(&Sealer::new(&[7; 32])),
    )
    .unwrap();
    let letters = Arc::new(EmbeddedDeadLetters::open(file).await.unwrap());
    let status =
        run_projection(Arc::new(Nothing), "test", TOPIC, &log, letters, &shutdown).unwrap();
    eventually("the error is told", async || status.read_error().is_some()).await;
    let reason = status.read_error().unwrap();
    assert!(reason.contains(TOPIC), "{reason}");
    assert!(reason.contains("Message size too large"), "{reason}");
    assert_eq!(shutdown.drain(Duration::from_secs(20)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_ends_with_the_reason_and_the_next_one_reads_on_when_it_is_over() {
    let (cluster, shutdown) = (refusing(), Shutdown::new());
    let log = connected(&cluster, &shutdown);
    let from = Offsets::from([(0, 0)]);
    let tail = log.tail(TOPIC, &from, Attention::Prompt).unwrap();
    let ended = tokio::time::timeout(LIMIT, tail.next()).await.unwrap();
    let Err(LogError::Unreadable(reason)) = ended else {
        panic!("{ended:?}");
    };
    assert!(reason.starts_with(REASON), "{reason}");
    assert!(reason.contains("Message size too large"), "{reason}");

    // If tails are opened one after the other, the connection reports the error.
    let mut others = Vec::new();
    while log.unreadable().is_empty() {
        let other = log.tail(TOPIC, &from, Attention::Prompt).unwrap();
        let ended = tokio::time::timeout(LIMIT, other.next()).await.unwrap();
        assert!(matches!(ended, Err(LogError::Unreadable(_))), "{ended:?}");
        others.push(other);
        assert!(others.len() < 10, "the connection never tells of it");
    }
    assert!(log.unreadable()[0].starts_with(REASON));

    cluster.clear_request_errors(RDKafkaApiKey::Fetch);
    let next = log.tail(TOPIC, &from, Attention::Prompt).unwrap();
    let arrival = tokio::time::timeout(LIMIT, next.next()).await.unwrap();
    assert!(matches!(arrival, Ok(Arrival::Record(_))), "{arrival:?}");
}
