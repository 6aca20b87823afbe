//! Reads batches with every compression that Kafka supports from a real Kafka. Other producers choose it, or a topic's
//! `compression.type`.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{collections::BTreeSet, time::Duration};

use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use tandem_backends::{KafkaOptions, require};
use tandem_event_path::log::{Arrival, Attention, Log};
use tandem_log_kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic};
use tandem_runtime::shutdown::Shutdown;

const TOPIC: &str = "compression.test";
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_every_compression_are_read() {
    require!(kafka);
    let server = tandem_backends::Kafka::start(KafkaOptions::default())
        .await
        .unwrap();
    let shutdown = Shutdown::new();
    let settings = KafkaSettings {
        partitions: 1,
        replication: 1,
        ..KafkaSettings::of(server.bootstrap())
    };
    let kafka = Kafka::connect(settings, vec![Topic::log(TOPIC)], &shutdown).unwrap();
    assert!(kafka.ready().await);
    let body = "again and ".repeat(500);
    for codec in CODECS {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", server.bootstrap())
            .set("compression.codec", codec)
            .create()
            .unwrap();
        let record = FutureRecord::to(TOPIC).key(codec).payload(&body);
        producer.send(record, LIMIT).await.unwrap();
    }

    let tail = kafka
        .tail(TOPIC, &[(0, 0)].into(), Attention::Prompt)
        .unwrap();
    let mut read = BTreeSet::new();
    while read.len() < CODECS.len() {
        let arrival = tokio::time::timeout(LIMIT, tail.next()).await.unwrap();
        if let Arrival::Record(message) = arrival.unwrap() {
            assert_eq!(message.payload.unwrap(), body.as_bytes());
            read.insert(message.key.unwrap());
        }
    }
    assert_eq!(read, CODECS.map(str::to_owned).into());
}
