//! A member of a consumer group.
#![expect(clippy::disallowed_methods, reason = "it waits for a real server")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::FutureExt;
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
    statistics::Partition,
};
use tandem_event_path::log::{Attention, LogError, Member, Membership, Offsets};
use tandem_model::message::Message;
use tokio::{sync::oneshot, time::timeout};

use crate::{
    away, no_client, record,
    settings::{COMMITTED, KafkaSettings, READ_AHEAD, READ_ON},
    unreadable,
};

pub(crate) struct KafkaMember {
    consumer: StreamConsumer<Context>,
    membership: Membership,
    /// The topic's name in Kafka.
    topic: String,
    reassigned: Arc<AtomicBool>,
    paused: Mutex<TopicPartitionList>,
    progress: Arc<Progress>,
}

/// How far the member has read, for the lag. Offsets have holes, and a partition that was read to its end has no lag.
#[derive(Default)]
struct Progress(Mutex<Places>);

#[derive(Default)]
struct Places {
    /// For each partition, the offset after the last record that was handed out.
    handed_out: BTreeMap<i32, i64>,
    /// For each partition, the last stored offset.
    stored: BTreeMap<i32, i64>,
    /// Partitions whose end was reached after that record.
    ended: BTreeSet<i32>,
    /// For each partition that was behind at the last lag report, the offset after the last record handed out by then.
    behind: BTreeMap<i32, Option<i64>>,
    /// Partitions that are behind, and that handed out nothing between the last two reports.
    stuck: BTreeSet<i32>,
}

impl Progress {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of messages from the last processed one to the end of a partition.
    fn lag(&self, partition: &Partition) -> i64 {
        // Messages that an open transaction holds back count too.
        let end = partition.hi_offset.max(partition.ls_offset);
        let mut done = partition.stored_offset.max(partition.committed_offset);
        let places = self.places();
        let number = partition.partition;
        if places.ended.contains(&number)
            && places.handed_out.get(&number) == places.stored.get(&number)
        {
            done = done.max(partition.eof_offset);
        }
        if done < 0 {
            done = partition.lo_offset.max(0);
        }
        (end - done).max(0)
    }

    /// Records the partitions that are behind.
    fn note(&self, behind: impl IntoIterator<Item = i32>) {
        let mut places = self.places();
        let behind: BTreeMap<i32, Option<i64>> = behind
            .into_iter()
            .map(|partition| (partition, places.handed_out.get(&partition).copied()))
            .collect();
        places.stuck = behind
            .iter()
            .filter(|(partition, at)| places.behind.get(*partition) == Some(*at))
            .map(|(partition, _)| *partition)
            .collect();
        places.behind = behind;
    }
}

impl KafkaMember {
    /// The message, if one was received; `None` for the end of a partition.
    fn received(
        &self,
        received: Result<BorrowedMessage<'_>, KafkaError>,
    ) -> Option<Result<Message, LogError>> {
        match received {
            Ok(message) => {
                let message = record::message(&message, self.membership.topic);
                let (partition, offset) = (message.position.partition, message.position.offset);
                let mut places = self.progress.places();
                places.handed_out.insert(partition, offset + 1);
                places.ended.remove(&partition);
                self.membership.errors.arrived();
                Some(Ok(message))
            }
            Err(KafkaError::PartitionEOF(partition)) => {
                self.progress.places().ended.insert(partition);
                self.membership.errors.arrived();
                None
            }
            Err(error) => {
                let stuck = self.progress.places().stuck.clone();
                let Membership { topic, errors, .. } = &self.membership;
                unreadable::note([errors], topic, stuck, &error);
                Some(Err(away(error)))
            }
        }
    }

    pub(crate) fn new(settings: &KafkaSettings, membership: Membership) -> Result<Self, LogError> {
        let reassigned = Arc::new(AtomicBool::new(true));
        let progress = Arc::<Progress>::default();
        let (least, longest) = match membership.attention {
            Attention::Prompt => ("1", "500".to_owned()),
            Attention::Patient(patience) => ("65536", patience.as_millis().to_string()),
        };
        let mut defaults = vec![
            ("auto.offset.reset", "earliest"),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1000"),
            ("auto.commit.interval.ms", "500"),
            ("statistics.interval.ms", "2000"),
            ("fetch.min.bytes", least),
            ("fetch.wait.max.ms", &longest),
            ("fetch.error.backoff.ms", "50"),
            COMMITTED,
            READ_AHEAD,
            READ_ON,
        ];
        if let Some(instance) = settings.instance() {
            defaults.push(("group.instance.id", instance));
        }
        let mut config = settings.client_config_with(&defaults);
        // Users cannot change these properties: an offset may be committed only for messages that were written.
        config
            .set("group.id", settings.physical(&membership.group))
            .set("enable.auto.commit", "true")
            .set("enable.partition.eof", "true")
            .set("enable.auto.offset.store", "false");
        let topic = settings.physical(membership.topic).into_owned();
        let context = Context {
            membership: membership.clone(),
            reassigned: Arc::clone(&reassigned),
            progress: Arc::clone(&progress),
        };
        Ok(Self {
            consumer: config
                .create_with_context(context)
                .map_err(no_client("a projection's consumer"))?,
            membership,
            topic,
            reassigned,
            paused: Mutex::new(TopicPartitionList::new()),
            progress,
        })
    }
}

#[async_trait]
impl Member for KafkaMember {
    fn subscribe(&self) -> Result<(), LogError> {
        self.consumer.subscribe(&[&self.topic]).map_err(away)
    }

    async fn next(&self) -> Result<Message, LogError> {
        loop {
            let received = self.consumer.recv().await;
            if let Some(received) = self.received(received) {
                return received;
            }
        }
    }

    fn next_ready(&self) -> Option<Message> {
        loop {
            let received = self.consumer.recv().now_or_never()?;
            if let Some(received) = self.received(received) {
                return received.ok();
            }
        }
    }

    fn was_reassigned(&self) -> bool {
        self.reassigned.swap(false, Ordering::AcqRel)
    }

    fn store(&self, next: &Offsets) -> Result<(), LogError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in next {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))
                .map_err(away)?;
        }
        self.progress.places().stored.extend(next);
        self.consumer.store_offsets(&list).map_err(away)
    }

    fn commit(&self) -> Result<(), LogError> {
        self.consumer
            .commit_consumer_state(CommitMode::Sync)
            .map_err(away)
    }

    fn pause(&self) {
        let assigned = self.consumer.assignment().unwrap_or_default();
        if let Err(error) = self.consumer.pause(&assigned) {
            tracing::debug!(%error, "partitions not paused");
        }
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in assigned.elements() {
            let (topic, partition) = (partition.topic(), partition.partition());
            if paused.find_partition(topic, partition).is_none() {
                paused.add_partition(topic, partition);
            }
        }
    }

    /// Resumes all paused partitions, also those that another member has meanwhile. librdkafka keeps a partition paused
    /// when it is revoked and assigned again, and then nobody would read it.
    fn resume(&self) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.consumer.resume(&paused) {
            tracing::warn!(%error, "partitions not resumed");
        }
        *paused = TopicPartitionList::new();
    }

    /// Commits and closes on a separate thread, which is abandoned when it takes too long. librdkafka waits
    /// without a limit for the answer to a commit that was in flight when the brokers went away (its issue 3740).
    async fn leave(self: Box<Self>, limit: Duration) -> bool {
        let (left_in, left) = oneshot::channel();
        let leaving = std::thread::Builder::new()
            .name("leave-group".to_owned())
            .spawn(move || {
                let Self { consumer, membership, .. } = *self;
                if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
                    && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
                {
                    tracing::debug!(group = membership.group, %error, "the last offsets were not committed; some messages will be read again");
                }
                drop(consumer);
                // The receiver may be gone, if this took too long.
                let _ = left_in.send(());
            });
        match leaving {
            Ok(_) => timeout(limit, left).await.is_ok(),
            Err(error) => {
                tracing::warn!(%error, "no thread to leave the group on");
                false
            }
        }
    }
}

struct Context {
    membership: Membership,
    reassigned: Arc<AtomicBool>,
    progress: Arc<Progress>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let lags: Vec<(i32, i64)> = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values())
            .filter(|partition| partition.partition >= 0 && partition.desired)
            .map(|partition| (partition.partition, self.progress.lag(partition)))
            .collect();
        let behind = lags.iter().filter(|(_, lag)| *lag > 0);
        self.progress.note(behind.map(|(partition, _)| *partition));
        (self.membership.on_lag)(lags.iter().map(|(_, lag)| lag).sum());
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.reassigned.store(true, Ordering::Release);
        let group = &self.membership.group;
        match rebalance {
            Rebalance::Assign(partitions) => {
                tracing::debug!(
                    group,
                    partitions = partitions.count(),
                    "partitions assigned"
                );
            }
            Rebalance::Revoke(partitions) => {
                tracing::debug!(group, partitions = partitions.count(), "partitions revoked");
            }
            Rebalance::Error(error) => {
                tracing::warn!(group, %error, "rebalancing failed; it is tried again");
            }
        }
    }
}
