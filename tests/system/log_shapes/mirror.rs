//! A real Kafka, and what other systems do on it: they mirror topics in transactions, and add partitions.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tandem_backends::{Kafka, KafkaOptions};
use tokio::runtime::Runtime;

use crate::support::{Tandem, checker::LoggedEvent};

const LIMIT: Duration = Duration::from_secs(30);

/// A real Kafka, and the runtime that it needs until its end.
pub struct Log {
    pub runtime: Runtime,
    pub kafka: Kafka,
}

impl Log {
    pub fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let kafka = runtime
            .block_on(Kafka::start(KafkaOptions::default()))
            .unwrap();
        Self { runtime, kafka }
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.bootstrap());
        config
    }

    /// A system with its own stores on this log.
    pub fn tandem(&self) -> Tandem {
        Tandem::builder()
            .accepts_unsigned()
            .kafka(self.kafka.bootstrap())
            .start()
    }

    /// Mirrors the topic like another system would: in a transaction, first one message and then the marker at the end
    /// of every partition.
    pub fn mirror(&self, topic: &str, events: &[LoggedEvent], ends: End) {
        self.open_mirror(topic, events).end(ends);
    }

    /// The same, but the transaction stays open.
    pub fn open_mirror(&self, topic: &str, events: &[LoggedEvent]) -> Transaction {
        let producer: BaseProducer = self
            .client()
            .set(
                "transactional.id",
                format!("mirror-{}", uuid::Uuid::new_v4()),
            )
            .set("transaction.timeout.ms", "300000")
            .create()
            .unwrap();
        producer.init_transactions(LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        for event in events {
            let headers =
                event
                    .headers
                    .iter()
                    .fold(OwnedHeaders::new(), |headers, (key, value)| {
                        headers.insert(Header {
                            key,
                            value: Some(value),
                        })
                    });
            let record = BaseRecord::<str, [u8]>::to(topic)
                .partition(event.partition)
                .key(&event.key)
                .payload(&event.payload)
                .headers(headers);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(LIMIT).unwrap();
        Transaction(producer)
    }

    pub fn make(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        self.runtime.block_on(async {
            let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
            let done = admin
                .create_topics([&new], &AdminOptions::new())
                .await
                .unwrap();
            done[0].as_ref().unwrap();
        });
    }

    pub fn add_partitions(&self, topic: &str, count: usize) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        self.runtime.block_on(async {
            let more = NewPartitions::new(topic, count);
            let done = admin
                .create_partitions([&more], &AdminOptions::new())
                .await
                .unwrap();
            done[0].as_ref().unwrap();
        });
    }
}

/// An open transaction.
pub struct Transaction(BaseProducer);

impl Transaction {
    pub fn end(self, ends: End) {
        match ends {
            End::Committed => self.0.commit_transaction(LIMIT).unwrap(),
            End::Aborted => self.0.abort_transaction(LIMIT).unwrap(),
        }
    }
}

/// How a transaction ends.
#[derive(Clone, Copy)]
pub enum End {
    Committed,
    Aborted,
}
