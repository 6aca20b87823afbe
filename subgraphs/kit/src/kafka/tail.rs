//! Reads a whole topic by assignment, outside any group: every instance sees every message, for its live readers.

use std::{collections::BTreeMap, time::Duration};

use futures::FutureExt;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    error::KafkaError,
};
use tokio::{sync::oneshot, time::Instant};

use super::{
    ClientError, REQUEST_LIMIT,
    connection::Kafka,
    message::Message,
    settings::{READ_AHEAD, READ_ON},
    trouble::Trouble,
};

/// For each partition the offset of the next message to read.
pub type Offsets = BTreeMap<i32, i64>;

/// Why a tail could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum TailError {
    /// A property that librdkafka does not know or take.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Kafka does not answer, or not in time.
    #[error("Kafka is away: {0}")]
    Away(#[from] KafkaError),
    /// The topic was made a moment ago and its partitions are not known everywhere yet; asking again will work.
    #[error("Kafka does not know the partitions of {0} yet")]
    NoPartitions(&'static str),
    /// The question about the topic's ends was not carried through.
    #[error("the question about the topic's ends was broken off")]
    BrokenOff,
}

/// A reader of all partitions of one topic, from given offsets on.
pub struct LogTail {
    consumer: StreamConsumer,
    topic: &'static str,
    trouble: Trouble,
}

impl std::fmt::Debug for LogTail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LogTail")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

fn config(kafka: &Kafka) -> rdkafka::ClientConfig {
    let mut config = kafka.settings().client_config_with(&[
        ("fetch.wait.max.ms", "500"),
        ("fetch.error.backoff.ms", "50"),
        READ_AHEAD,
        READ_ON,
    ]);
    // librdkafka wants a group id from every consumer; this one never joins a group nor commits.
    config
        .set("group.id", "tandem-tail")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "earliest");
    config
}

/// The ends of a topic: for each partition the first offset and the one behind its last message.
///
/// # Errors
/// When Kafka does not answer within [`REQUEST_LIMIT`].
pub async fn ends(
    kafka: &Kafka,
    topic: &'static str,
) -> Result<BTreeMap<i32, (i64, i64)>, TailError> {
    let config = config(kafka);
    let consumer: BaseConsumer = config.create().map_err(|source| ClientError {
        purpose: "a look at a topic's ends",
        source,
    })?;
    let ask = move |consumer: &BaseConsumer| -> Result<BTreeMap<i32, (i64, i64)>, TailError> {
        let metadata = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        if partitions.is_empty() {
            return Err(TailError::NoPartitions(topic));
        }
        let limit = Instant::now() + REQUEST_LIMIT;
        let mut found = BTreeMap::new();
        for partition in partitions {
            let left = limit.saturating_duration_since(Instant::now());
            let (low, high) =
                consumer.fetch_watermarks(topic, partition, left.max(Duration::from_millis(1)))?;
            found.insert(partition, (low, high));
        }
        Ok(found)
    };
    let (answer_in, answer) = oneshot::channel();
    // librdkafka's questions block their thread. So does the end of a client, which nobody needs to wait for.
    tokio::task::spawn_blocking(move || {
        let _ = answer_in.send(ask(&consumer));
        drop(consumer);
    });
    answer.await.map_err(|_| TailError::BrokenOff)?
}

impl LogTail {
    /// Opens a tail that begins at these offsets, which must name every partition.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open(kafka: &Kafka, topic: &'static str, from: &Offsets) -> Result<Self, TailError> {
        Self::open_with(config(kafka), topic, from)
    }

    /// As [`Self::open`], for one who is in no hurry: the broker gathers messages for up to half a second.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn open_patient(
        kafka: &Kafka,
        topic: &'static str,
        from: &Offsets,
    ) -> Result<Self, TailError> {
        let mut config = config(kafka);
        config.set("fetch.min.bytes", "65536");
        Self::open_with(config, topic, from)
    }

    fn open_with(
        config: rdkafka::ClientConfig,
        topic: &'static str,
        from: &Offsets,
    ) -> Result<Self, TailError> {
        let consumer: StreamConsumer = config.create().map_err(|source| ClientError {
            purpose: "a tail",
            source,
        })?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list)?;
        Ok(Self {
            consumer,
            topic,
            trouble: Trouble::of(format!("the tail of {topic}")),
        })
    }

    /// The next message; waits for it, however long the brokers are away meanwhile. Safe to cancel.
    ///
    /// # Errors
    /// When the client cannot go on: a new one may.
    pub async fn next(&self) -> Result<Message, KafkaError> {
        loop {
            match self.consumer.recv().await {
                Ok(message) => return Ok(Message::from(&message)),
                Err(error) if self.consumer.client().fatal_error().is_some() => return Err(error),
                Err(error) => self.trouble.heard(&error).await,
            }
        }
    }

    /// The next message if it is here already.
    #[must_use]
    pub fn next_ready(&self) -> Option<Message> {
        match self.consumer.recv().now_or_never() {
            Some(Ok(message)) => Some(Message::from(&message)),
            _ => None,
        }
    }
}
