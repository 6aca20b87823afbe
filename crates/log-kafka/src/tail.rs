//! Reads a whole topic by assignment, outside of any consumer group. So every instance sees every message, for its live
//! readers.
#![expect(clippy::disallowed_methods, reason = "it waits for a real server")]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::FutureExt;
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, StreamConsumer},
    error::KafkaError,
    message::BorrowedMessage,
    metadata::Metadata,
};
use tandem_event_path::log::{Arrival, Attention, Ends, LogError, Offsets, ReadErrors, Tail};
use tandem_runtime::{clock::Clock, rate_limited_log::RateLimitedLog};
use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    REQUEST_LIMIT, away, certificate,
    link::Link,
    no_client,
    reason::Cause,
    record,
    settings::{COMMITTED, KafkaSettings, NOTICE_PARTITIONS, READ_AHEAD, READ_ON},
    unreadable,
};

/// The time limit of one metadata request, and how long to wait for a broker that is just starting.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to retry unreadable records before the tail ends. Readers that read up to an end wait longer than this.
const UNREADABLE: Duration = Duration::from_secs(5);

fn config(settings: &KafkaSettings) -> rdkafka::ClientConfig {
    let mut config = settings.client_config_with(&[
        ("fetch.wait.max.ms", "500"),
        ("fetch.error.backoff.ms", "50"),
        COMMITTED,
        READ_AHEAD,
        READ_ON,
    ]);
    // librdkafka requires a group id for every consumer. This one never joins a group and never commits.
    config
        .set("group.id", "tandem-tail")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest");
    config
}

/// The current begin and end of each partition of a topic, as visible at this isolation level.
pub(crate) async fn ends(
    settings: Arc<KafkaSettings>,
    topic: String,
    isolation: (&'static str, &'static str),
) -> Result<Ends, LogError> {
    // A separate link, because its errors are the answer to this request.
    let link = Link::default();
    let heard = link.clone();
    let consumer: BaseConsumer<Link> = config(&settings)
        .set(isolation.0, isolation.1)
        .create_with_context(link)
        .map_err(no_client("a look at a topic's ends"))?;
    let ask = move |consumer: &BaseConsumer<Link>| -> Result<Ends, LogError> {
        let metadata = metadata(consumer, &topic, &heard, &settings)?;
        let partitions: Vec<i32> = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        if partitions.is_empty() {
            return Err(LogError::NoPartitions(topic));
        }
        let limit = Instant::now() + REQUEST_LIMIT;
        let mut found = Ends::new();
        for partition in partitions {
            let left = limit.saturating_duration_since(Instant::now());
            let ends = consumer
                .fetch_watermarks(&topic, partition, left.max(Duration::from_millis(1)))
                .map_err(away)?;
            found.insert(partition, ends);
        }
        Ok(found)
    };
    let (answer_in, answer) = oneshot::channel();
    // Calls of librdkafka block their thread. Dropping a client does too, and no caller needs to wait for that.
    tokio::task::spawn_blocking(move || {
        let _ = answer_in.send(ask(&consumer));
        drop(consumer);
    });
    let broken_off =
        |_| LogError::Unavailable("the question about the topic's ends was broken off".into());
    answer.await.map_err(broken_off)?
}

/// For each of these partitions, the offset of the first record that was published at this time or later, in
/// milliseconds since 1970. It is the end of the partition if there is none.
pub(crate) async fn since(
    settings: Arc<KafkaSettings>,
    topic: String,
    time_ms: i64,
    ends: Ends,
) -> Result<Offsets, LogError> {
    let consumer: BaseConsumer = config(&settings)
        .create()
        .map_err(no_client("a look at a topic's times"))?;
    let ask = move |consumer: &BaseConsumer| -> Result<Offsets, KafkaError> {
        let mut times = TopicPartitionList::new();
        for partition in ends.keys() {
            times.add_partition_offset(&topic, *partition, Offset::Offset(time_ms))?;
        }
        let found = consumer.offsets_for_times(times, REQUEST_LIMIT)?;
        let from = ends.into_iter().map(|(partition, (_, high))| {
            let found = found.find_partition(&topic, partition);
            match found.map(|found| found.offset()) {
                Some(Offset::Offset(offset)) => (partition, offset),
                _ => (partition, high),
            }
        });
        Ok(from.collect())
    };
    // Calls of librdkafka block their thread, and so does dropping a client.
    let asked = tokio::task::spawn_blocking(move || ask(&consumer));
    let broken_off =
        |_| LogError::Unavailable("the question about the topic's times was broken off".into());
    asked.await.map_err(broken_off)?.map_err(away)
}

/// A topic's metadata. Fails early, with the reason, if no broker is reachable.
fn metadata(
    consumer: &BaseConsumer<Link>,
    topic: &str,
    heard: &Link,
    settings: &KafkaSettings,
) -> Result<Metadata, LogError> {
    let begun = Instant::now();
    loop {
        let error = match consumer.fetch_metadata(Some(topic), LOOK) {
            Ok(metadata) => return Ok(metadata),
            Err(error) => error,
        };
        // The client reports errors of its connection only when it is polled.
        while consumer.poll(Duration::ZERO).is_some() {}
        let waited = begun.elapsed();
        if waited >= REQUEST_LIMIT || heard.is_down() && waited >= PATIENCE {
            let Some(mut reason) = heard.reason() else {
                return Err(away(error));
            };
            if reason.cause == Cause::Certificate {
                reason.cause =
                    certificate::cause(settings, &CancellationToken::new()).unwrap_or(reason.cause);
            }
            return Err(LogError::Unreachable(reason.to_string()));
        }
    }
}

/// Watches for partitions that are added to the topic, and reads them from their beginning. Ends with the tail.
async fn watch(
    consumer: Weak<StreamConsumer>,
    topic: Arc<str>,
    known: Arc<Mutex<BTreeSet<i32>>>,
    clock: Clock,
) {
    loop {
        clock.sleep(clock.jittered(NOTICE_PARTITIONS)).await;
        let Some(consumer) = consumer.upgrade() else {
            return;
        };
        let (known, looked_at) = (Arc::clone(&known), Arc::clone(&topic));
        // Calls of librdkafka block their thread, and so does dropping a client.
        let looked = tokio::task::spawn_blocking(move || {
            let topic = looked_at.as_ref();
            let metadata = consumer.fetch_metadata(Some(topic), REQUEST_LIMIT)?;
            let found = metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions());
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            let added: Vec<i32> = found
                .map(|partition| partition.id())
                .filter(|partition| !known.contains(partition))
                .collect();
            if added.is_empty() {
                return Ok(());
            }
            let mut list = TopicPartitionList::new();
            for partition in &added {
                list.add_partition_offset(topic, *partition, Offset::Beginning)?;
            }
            consumer.incremental_assign(&list)?;
            tracing::info!(topic, partitions = ?added, "partitions were added; they are read from their beginning");
            known.extend(added);
            Ok::<_, KafkaError>(())
        });
        match looked.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(topic = topic.as_ref(), %error, "whether partitions were added is not known");
            }
            Err(_) => return,
        }
    }
}

pub(crate) struct KafkaTail {
    /// `None` only while the tail is dropped.
    consumer: Option<Arc<StreamConsumer>>,
    topic: &'static str,
    /// The topic's name in Kafka.
    physical: Arc<str>,
    /// The partitions that are read.
    known: Arc<Mutex<BTreeSet<i32>>>,
    /// The task that watches for added partitions.
    _watch: AbortOnDropHandle<()>,
    errors: RateLimitedLog,
    /// The partitions that were not read to their end since they were assigned.
    unread: Mutex<BTreeSet<i32>>,
    /// What this tail cannot read.
    unreadable: ReadErrors,
    /// What all tails of the topic cannot read, for reports.
    told: ReadErrors,
}

impl std::fmt::Debug for KafkaTail {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KafkaTail")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl KafkaTail {
    pub(crate) fn open(
        settings: &KafkaSettings,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
        told: ReadErrors,
        clock: &Clock,
    ) -> Result<Self, LogError> {
        let mut config = config(settings);
        if let Attention::Patient(patience) = attention {
            config
                .set("fetch.min.bytes", "65536")
                .set("fetch.wait.max.ms", patience.as_millis().to_string());
        }
        let consumer: StreamConsumer = config.create().map_err(no_client("a tail"))?;
        let (consumer, known) = (Arc::new(consumer), Arc::default());
        let physical: Arc<str> = settings.physical(topic).into();
        let watching = watch(
            Arc::downgrade(&consumer),
            Arc::clone(&physical),
            Arc::clone(&known),
            clock.clone(),
        );
        let tail = Self {
            consumer: Some(consumer),
            topic,
            physical,
            known,
            _watch: AbortOnDropHandle::new(tokio::spawn(watching)),
            errors: RateLimitedLog::new(format!("the tail of {topic}"), clock),
            unread: Mutex::default(),
            unreadable: ReadErrors::new(clock),
            told,
        };
        tail.assign(from)?;
        Ok(tail)
    }
}

impl KafkaTail {
    /// What was received, or the error from which the client recovers by itself.
    fn arrival(
        &self,
        received: Result<BorrowedMessage<'_>, KafkaError>,
    ) -> Result<Arrival, KafkaError> {
        let arrival = match received {
            Ok(message) => Arrival::Record(record::message(&message, self.topic)),
            Err(KafkaError::PartitionEOF(partition)) => {
                self.unread().remove(&partition);
                Arrival::End(partition)
            }
            Err(error) => {
                let unread = self.unread().clone();
                unreadable::note([&self.unreadable, &self.told], self.topic, unread, &error);
                return Err(error);
            }
        };
        self.unreadable.arrived();
        self.told.arrived();
        Ok(arrival)
    }

    fn unread(&self) -> MutexGuard<'_, BTreeSet<i32>> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Tail for KafkaTail {
    fn assign(&self, from: &Offsets) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in from {
            list.add_partition_offset(&self.physical, *partition, Offset::Offset(*offset))
                .map_err(away)?;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = from.keys().copied().collect();
        self.unread().clone_from(&known);
        self.unreadable.forget();
        self.consumer()?.assign(&list).map_err(away)
    }

    async fn next(&self) -> Result<Arrival, LogError> {
        let consumer = self.consumer()?;
        loop {
            let received = tokio::select! {
                biased;
                reason = self.unreadable.until_lasting(UNREADABLE) => {
                    return Err(LogError::Unreadable(reason));
                }
                received = consumer.recv() => received,
            };
            match self.arrival(received) {
                Ok(arrival) => return Ok(arrival),
                Err(error) if consumer.client().fatal_error().is_some() => {
                    return Err(LogError::Ended(error.to_string()));
                }
                Err(error) => self.errors.error(&error).await,
            }
        }
    }

    fn next_ready(&self) -> Option<Arrival> {
        let received = self.consumer.as_ref()?.recv().now_or_never()?;
        self.arrival(received).ok()
    }
}

impl KafkaTail {
    fn consumer(&self) -> Result<&StreamConsumer, LogError> {
        self.consumer
            .as_deref()
            .ok_or_else(|| LogError::Ended("it is closed".to_owned()))
    }
}

impl Drop for KafkaTail {
    /// Drops the consumer on a separate thread, because closing its connections blocks.
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        let closing = std::thread::Builder::new()
            .name("close-tail".to_owned())
            .spawn(move || drop(consumer));
        if let Err(error) = closing {
            tracing::debug!(%error, "no thread to close a tail on");
        }
    }
}
