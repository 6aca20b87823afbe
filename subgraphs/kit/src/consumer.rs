//! Runs a projection: reads a topic in a consumer group, hands over what is there, commits offsets after the write.
//!
//! * What is there is taken at once: a single message waits for nobody (unless its projection is patient), a backlog comes
//!   in large batches.
//! * Offsets are stored for commit only after what the projection has written is durable, so a crash repeats and never skips.
//!   Readers need not wait for that: the log has it. So a projection may show a batch at once, and is asked to keep what it has
//!   shown a moment later, many batches together. Until then they are held here, to be written again if the store lost them.
//! * What cannot be taken is parked with what follows of the same key, and copied to `<topic>.DLT`; the flow goes on.
//! * A store that is away is waited out; the group membership is kept alive meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{SecondsFormat, Utc};
use futures::FutureExt;
use rdkafka::{
    ClientContext, Offset, Statistics, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance, StreamConsumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::FutureRecord,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    fault::{self, Fault},
    kafka::{
        ClientError,
        connection::Kafka,
        message::{Message, Position, Rejection},
        settings::{READ_AHEAD, READ_ON},
        trouble::Trouble,
    },
    shutdown::Shutdown,
    store::{DeadLetter, DeadLetterStore, StoreError, Term},
};

/// Messages handed over at once.
const BATCH: usize = 2_000;
/// A write that takes longer than this pauses the reading, so that the group keeps this member.
const SLOW: Duration = Duration::from_millis(500);
/// How long what is shown may wait to be kept, and so many messages of it at most.
const SHOWN: Duration = Duration::from_millis(200);
const SHOWN_AT_MOST: usize = BATCH;
/// How long keeping it may take when the service stops.
const FAREWELL: Duration = Duration::from_millis(500);
/// First and longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Longest wait for the last commit and for leaving the group.
const LEAVE_LIMIT: Duration = Duration::from_millis(800);
/// How often the parked keys are read again, so that what an operator freed flows again.
const PARKED_REFRESH: Duration = Duration::from_secs(2);

/// Something that is built from a topic, one message after the other.
#[async_trait]
pub trait Projection: Send + Sync + 'static {
    /// A message that could be read.
    type Item: Clone + Send + Sync;

    /// Its name: the consumer group, and the consumer that dead letters name.
    fn name(&self) -> &'static str;

    /// How long a message waits at the broker for others to share its write: for what nobody waits for.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// Reads a message. Pure: it asks nobody.
    ///
    /// # Errors
    /// Why the message cannot be taken, now or ever: it becomes a dead letter.
    fn decode(&self, message: &Message) -> Result<Self::Item, Rejection>;

    /// Writes a batch, in order within each partition. Writing the same again must change nothing.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn apply(&self, items: Vec<(Position, Self::Item)>) -> Result<(), StoreError>;

    /// Writes a batch as [`Self::apply`] does, for readers to see at once; a crash of the store may undo it until
    /// [`Self::keep`] says otherwise. Answers the term in which it was written, `None` if it is durable.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn show(&self, items: Vec<(Position, Self::Item)>) -> Result<Option<Term>, StoreError> {
        self.apply(items).await.map(|()| None)
    }

    /// Makes durable what was shown in `term`. Answers false if the store may have lost it: the runner has it applied then.
    ///
    /// # Errors
    /// When the store is away: the runner tries again.
    async fn keep(&self, _term: &Term) -> Result<bool, StoreError> {
        Ok(false)
    }
}

/// What a running projection tells of itself. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct ProjectionStatus(Arc<Status>);

#[derive(Debug, Default)]
struct Status {
    lag: AtomicI64,
    applied: AtomicU64,
    parked: AtomicU64,
    waiting_for_store: AtomicBool,
}

impl ProjectionStatus {
    /// Messages in the topic that are not applied yet, of the partitions that this instance reads; as of some seconds ago.
    #[must_use]
    pub fn lag(&self) -> i64 {
        self.0.lag.load(Ordering::Relaxed)
    }

    /// Messages applied since the start.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.0.applied.load(Ordering::Relaxed)
    }

    /// Keys that have dead letters.
    #[must_use]
    pub fn parked_keys(&self) -> u64 {
        self.0.parked.load(Ordering::Relaxed)
    }

    /// Whether it waits for a store that does not answer.
    #[must_use]
    pub fn is_waiting_for_store(&self) -> bool {
        self.0.waiting_for_store.load(Ordering::Relaxed)
    }
}

/// Starts to run a projection of `topic`; dead letters go to `dead_letter_topic` too.
///
/// `store_identity` (see [`crate::store::identity`]) is part of the consumer group's name, so that a new, empty store
/// reads the topic from the beginning.
///
/// # Errors
/// When a property is not one of librdkafka's or has a value that it does not take.
pub fn run_projection<P: Projection>(
    projection: Arc<P>,
    store_identity: &str,
    topic: &'static str,
    dead_letter_topic: &'static str,
    kafka: &Kafka,
    dead_letters: Arc<dyn DeadLetterStore>,
    shutdown: &Shutdown,
) -> Result<ProjectionStatus, ClientError> {
    let status = ProjectionStatus::default();
    let reassigned = Arc::new(AtomicBool::new(true));
    let context = Context {
        projection: projection.name(),
        status: status.clone(),
        reassigned: Arc::clone(&reassigned),
    };
    let group = format!("{}.{store_identity}", projection.name());
    let consumer = consumer(kafka, &group, projection.patience(), context)?;
    let runner = Runner {
        projection,
        topic,
        dead_letter_topic,
        consumer,
        kafka: kafka.clone(),
        dead_letters,
        parked: HashSet::new(),
        parked_read: None,
        shown: None,
        taken: HashMap::new(),
        reassigned,
        status: status.clone(),
        stop: shutdown.token(),
    };
    let kafka = kafka.clone();
    let stop = shutdown.token();
    shutdown.spawn(async move {
        let ready = tokio::select! {
            () = stop.cancelled() => false,
            ready = kafka.ready() => ready,
        };
        if ready {
            runner.run().await;
        }
    });
    Ok(status)
}

fn consumer(
    kafka: &Kafka,
    group: &str,
    patience: Duration,
    context: Context,
) -> Result<StreamConsumer<Context>, ClientError> {
    // The patient let the broker gather, which costs it one answer where it had many.
    let (least, longest) = if patience.is_zero() {
        ("1", "500".to_owned())
    } else {
        ("65536", patience.as_millis().to_string())
    };
    let mut config = kafka.settings().client_config_with(&[
        ("auto.offset.reset", "earliest"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1000"),
        ("auto.commit.interval.ms", "500"),
        ("statistics.interval.ms", "2000"),
        ("fetch.min.bytes", least),
        ("fetch.wait.max.ms", &longest),
        ("fetch.error.backoff.ms", "50"),
        READ_AHEAD,
        READ_ON,
    ]);
    // Not for the user to choose: what is committed must be what was written.
    config
        .set("group.id", group)
        .set("enable.auto.commit", "true")
        .set("enable.auto.offset.store", "false");
    config
        .create_with_context(context)
        .map_err(|source| ClientError {
            purpose: "a projection's consumer",
            source,
        })
}

/// Commits what is stored and leaves the group. Both happen on a thread of their own, which is left behind when they take too long:
/// librdkafka waits without end for the answer to a commit that was on its way when the brokers went (its issue 3740).
async fn leave(projection: &'static str, consumer: StreamConsumer<Context>) {
    let (left_in, left) = oneshot::channel();
    let leaving = std::thread::Builder::new()
        .name("leave-group".to_owned())
        .spawn(move || {
            if let Err(error) = consumer.commit_consumer_state(CommitMode::Sync)
                && error.rdkafka_error_code() != Some(RDKafkaErrorCode::NoOffset)
            {
                tracing::debug!(projection, %error, "the last offsets were not committed; some messages will be read again");
            }
            drop(consumer);
            // Nobody waits any longer: it took too long.
            let _ = left_in.send(());
        });
    match leaving {
        Ok(_) if timeout(LEAVE_LIMIT, left).await.is_ok() => {}
        Ok(_) => tracing::warn!(
            projection,
            limit = ?LEAVE_LIMIT,
            "Kafka did not answer the last commit and the leave in time; some messages may be read again"
        ),
        Err(error) => tracing::warn!(projection, %error, "no thread to leave the group on"),
    }
}

struct Context {
    projection: &'static str,
    status: ProjectionStatus,
    reassigned: Arc<AtomicBool>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let lag: i64 = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values())
            .filter(|partition| partition.partition >= 0)
            .map(|partition| partition.consumer_lag_stored.max(0))
            .sum();
        self.status.0.lag.store(lag, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("projection_lag_messages", "projection" => self.projection).set(lag as f64);
    }
}

impl ConsumerContext for Context {
    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.reassigned.store(true, Ordering::Release);
        match rebalance {
            Rebalance::Assign(partitions) => {
                tracing::debug!(
                    projection = self.projection,
                    partitions = partitions.count(),
                    "partitions assigned"
                );
            }
            Rebalance::Revoke(partitions) => {
                tracing::debug!(
                    projection = self.projection,
                    partitions = partitions.count(),
                    "partitions revoked"
                );
            }
            Rebalance::Error(error) => {
                tracing::warn!(projection = self.projection, %error, "rebalancing failed; it is tried again");
            }
        }
    }
}

struct Runner<P: Projection> {
    projection: Arc<P>,
    topic: &'static str,
    dead_letter_topic: &'static str,
    consumer: StreamConsumer<Context>,
    kafka: Kafka,
    dead_letters: Arc<dyn DeadLetterStore>,
    parked: HashSet<String>,
    parked_read: Option<Instant>,
    shown: Option<Shown<P::Item>>,
    /// For each partition the offset behind what was taken and is not stored for commit.
    taken: HashMap<i32, i64>,
    reassigned: Arc<AtomicBool>,
    status: ProjectionStatus,
    stop: CancellationToken,
}

/// What readers see and the store may still lose.
struct Shown<I> {
    term: Term,
    /// Whether the store has begun another term since the first of it.
    is_torn: bool,
    messages: Vec<(Position, I)>,
    /// When it is to be kept.
    due: Instant,
}

impl<P: Projection> Runner<P> {
    async fn run(mut self) {
        let name = self.projection.name();
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.consumer.subscribe(&[self.topic]) {
            tracing::warn!(projection = name, %error, ?pause, "cannot subscribe; trying again");
            if self.wait(&mut pause).await {
                return;
            }
        }
        let stop = self.stop.clone();
        let trouble = Trouble::of(name);
        let mut carried: Vec<Message> = Vec::new();
        loop {
            let mut batch = std::mem::take(&mut carried);
            if batch.is_empty() {
                let due = self.shown.as_ref().map(|shown| shown.due);
                let received = tokio::select! {
                    () = stop.cancelled() => break,
                    received = self.consumer.recv() => Some(received.map(|message| Message::from(&message))),
                    () = until(due), if due.is_some() => None,
                };
                match received {
                    Some(Ok(message)) => batch.push(message),
                    Some(Err(error)) => {
                        trouble.heard(&error).await;
                        continue;
                    }
                    None => {}
                }
            }
            while batch.len() < BATCH {
                match self.consumer.recv().now_or_never() {
                    Some(Ok(message)) => batch.push(Message::from(&message)),
                    Some(Err(_)) | None => break,
                }
            }
            match self.take(batch).await {
                Some(read_meanwhile) => carried = read_meanwhile,
                None => break,
            }
        }
        if timeout(FAREWELL, self.keep(&mut carried)).await.is_err() {
            tracing::debug!(projection = name, "what was written last may be read again");
        }
        leave(name, self.consumer).await;
    }

    /// Takes a batch, which may be empty, and keeps what is shown if it is time to. Returns what was read meanwhile, `None` when the
    /// service stops.
    async fn take(&mut self, batch: Vec<Message>) -> Option<Vec<Message>> {
        let mut read_meanwhile = Vec::new();
        self.refresh_parked(&mut read_meanwhile).await?;
        let next = next_offsets(&batch);
        let (readable, letters) = self.sort(batch);
        let count = readable.len() as u64;
        if !letters.is_empty() {
            self.set_aside(&letters, &mut read_meanwhile).await?;
        }
        if fault::is_on(Fault::CommitBeforeWrite) {
            let _ = self.consumer.store_offsets(&self.offset_list(&next));
            let _ = self.consumer.commit_consumer_state(CommitMode::Sync);
            fault::abort_if_told(fault::Instant::AfterEarlyCommit, self.projection.name());
        }
        if !readable.is_empty() {
            self.show(readable, &mut read_meanwhile).await?;
        }
        // Not before: a service that stops while the store is away must not commit what was not written.
        self.taken.extend(next);
        let may_wait = self.shown.as_ref().is_some_and(|shown| {
            shown.messages.len() < SHOWN_AT_MOST && Instant::now() < shown.due
        });
        if !may_wait {
            self.keep(&mut read_meanwhile).await?;
        }
        self.status.0.applied.fetch_add(count, Ordering::Relaxed);
        metrics::counter!("projection_applied_total", "projection" => self.projection.name())
            .increment(count);
        Some(read_meanwhile)
    }

    /// Splits a batch into what was read and what is to be set aside, in order.
    fn sort(&mut self, batch: Vec<Message>) -> (Vec<(Position, P::Item)>, Vec<DeadLetter>) {
        let mut readable = Vec::with_capacity(batch.len());
        let mut letters = Vec::new();
        for message in batch {
            let key = message.key.clone().unwrap_or_default();
            let reason = if self.parked.contains(&key) {
                "an earlier message of this key is a dead letter".to_owned()
            } else {
                match self.projection.decode(&message) {
                    Ok(item) => {
                        readable.push((message.position, item));
                        continue;
                    }
                    Err(rejection) => rejection.reason,
                }
            };
            tracing::warn!(
                projection = self.projection.name(),
                topic = message.topic,
                partition = message.position.partition,
                offset = message.position.offset,
                key,
                reason,
                "message set aside as a dead letter"
            );
            self.parked.insert(key.clone());
            letters.push(DeadLetter {
                consumer: self.projection.name().to_owned(),
                topic: message.topic,
                partition: message.position.partition,
                offset: message.position.offset,
                key,
                reason,
                parked_at: Utc::now(),
                headers: message.headers,
                payload: message.payload,
            });
        }
        (readable, letters)
    }

    /// Writes what was read, however long the store is away. `None` when the service stops before.
    async fn show(
        &mut self,
        readable: Vec<(Position, P::Item)>,
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        let term = self
            .until_done("the store is away", read_meanwhile, || {
                self.projection.show(readable.clone())
            })
            .await?;
        let Some(term) = term else {
            return Some(());
        };
        if let Some(shown) = &mut self.shown {
            shown.is_torn |= shown.term != term;
            shown.messages.extend(readable);
        } else {
            self.shown = Some(Shown {
                term,
                is_torn: false,
                messages: readable,
                due: Instant::now() + SHOWN,
            });
        }
        Some(())
    }

    /// Makes what is shown durable and stores the offsets of all that was taken. `None` when the service stops before.
    async fn keep(&mut self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        if let Some(shown) = &self.shown {
            self.until_done("the store is away", read_meanwhile, || {
                self.make_durable(shown)
            })
            .await?;
        }
        self.shown = None;
        fault::abort_if_told(fault::Instant::BeforeCommit, self.projection.name());
        if let Err(error) = self.consumer.store_offsets(&self.offset_list(&self.taken)) {
            // The partitions went to another member meanwhile: it reads these messages again, which changes nothing.
            tracing::debug!(projection = self.projection.name(), %error, "offsets not stored");
        }
        self.taken.clear();
        Some(())
    }

    async fn make_durable(&self, shown: &Shown<P::Item>) -> Result<(), StoreError> {
        if !shown.is_torn && self.projection.keep(&shown.term).await? {
            return Ok(());
        }
        tracing::warn!(
            projection = self.projection.name(),
            messages = shown.messages.len(),
            "the store was restarted, or has another primary: what was written last is written again"
        );
        self.projection.apply(shown.messages.clone()).await
    }

    /// Offsets as librdkafka stores them.
    fn offset_list(&self, offsets: &HashMap<i32, i64>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in offsets {
            let offset = Offset::Offset(offset);
            if let Err(error) = list.add_partition_offset(self.topic, partition, offset) {
                tracing::error!(%error, topic = self.topic, partition, "offset not noted");
            }
        }
        list
    }

    /// Parks dead letters in the store, then copies them to the dead letter topic.
    async fn set_aside(
        &mut self,
        letters: &[DeadLetter],
        read_meanwhile: &mut Vec<Message>,
    ) -> Option<()> {
        metrics::counter!("dead_letters_total", "projection" => self.projection.name())
            .increment(letters.len() as u64);
        self.until_done("dead letters cannot be parked", read_meanwhile, || {
            self.dead_letters.park(letters.to_vec())
        })
        .await?;
        self.tell_parked();
        self.until_done(
            "dead letters cannot be copied to their topic",
            read_meanwhile,
            || self.copy(letters),
        )
        .await
    }

    async fn copy(&self, letters: &[DeadLetter]) -> Result<(), KafkaError> {
        for letter in letters {
            let record = FutureRecord::to(self.dead_letter_topic)
                .key(&letter.key)
                .headers(dead_letter_headers(letter));
            let record = match &letter.payload {
                Some(payload) => record.payload(payload),
                None => record,
            };
            self.kafka.send_record(record).await?;
        }
        Ok(())
    }

    /// Reads the parked keys anew after a rebalance, and now and then while there are some.
    async fn refresh_parked(&mut self, read_meanwhile: &mut Vec<Message>) -> Option<()> {
        let reassigned = self.reassigned.swap(false, Ordering::AcqRel);
        let stale = !self.parked.is_empty()
            && self
                .parked_read
                .is_none_or(|read| read.elapsed() > PARKED_REFRESH);
        if !reassigned && !stale {
            return Some(());
        }
        let name = self.projection.name();
        let keys = self
            .until_done("the parked keys cannot be read", read_meanwhile, || {
                self.dead_letters.parked_keys(name)
            })
            .await?;
        self.parked = keys.into_iter().collect();
        self.parked_read = Some(Instant::now());
        self.tell_parked();
        Some(())
    }

    fn tell_parked(&self) {
        let parked = self.parked.len() as u64;
        self.status.0.parked.store(parked, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("dead_letter_keys", "projection" => self.projection.name())
            .set(parked as f64);
    }

    /// Tries until it is done, with growing pauses. `None` when the service stops before.
    async fn until_done<T, E, F>(
        &self,
        trouble: &str,
        read_meanwhile: &mut Vec<Message>,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Option<T>
    where
        E: std::fmt::Display,
        F: Future<Output = Result<T, E>> + Send,
    {
        let work = async {
            let mut pause = FIRST_PAUSE;
            loop {
                match attempt().await {
                    Ok(done) => {
                        if self
                            .status
                            .0
                            .waiting_for_store
                            .swap(false, Ordering::Relaxed)
                        {
                            tracing::info!(projection = self.projection.name(), "going on");
                        }
                        return Some(done);
                    }
                    Err(error) => {
                        self.status
                            .0
                            .waiting_for_store
                            .store(true, Ordering::Relaxed);
                        tracing::warn!(projection = self.projection.name(), %error, ?pause, "{trouble}; trying again");
                        if self.wait(&mut pause).await {
                            return None;
                        }
                    }
                }
            }
        };
        self.alive_during(work, read_meanwhile).await
    }

    /// Keeps the group membership alive while `work` takes long: the partitions are paused and the client is polled.
    async fn alive_during<T>(
        &self,
        work: impl Future<Output = T>,
        read_meanwhile: &mut Vec<Message>,
    ) -> T {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = sleep(SLOW) => {}
        }
        let mut paused = TopicPartitionList::new();
        self.pause_assigned(&mut paused);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                received = self.consumer.recv() => match received {
                    // Read before the pause took effect, or of a partition that was assigned since: kept for the next
                    // batch, in order.
                    Ok(message) => {
                        read_meanwhile.push(Message::from(&message));
                        self.pause_assigned(&mut paused);
                    }
                    Err(error) => {
                        tracing::debug!(%error, "while waiting");
                        sleep(FIRST_PAUSE).await;
                    }
                }
            }
        };
        // All that was paused, also what is another member's meanwhile: librdkafka keeps the pause of a partition that goes
        // and comes back, and then nobody would read it.
        if let Err(error) = self.consumer.resume(&paused) {
            tracing::warn!(%error, "partitions not resumed");
        }
        done
    }

    /// Pauses the partitions that are assigned now and adds them to `paused`.
    fn pause_assigned(&self, paused: &mut TopicPartitionList) {
        let assigned = self.consumer.assignment().unwrap_or_default();
        if let Err(error) = self.consumer.pause(&assigned) {
            tracing::debug!(%error, "partitions not paused");
        }
        for partition in assigned.elements() {
            let (topic, partition) = (partition.topic(), partition.partition());
            if paused.find_partition(topic, partition).is_none() {
                paused.add_partition(topic, partition);
            }
        }
    }

    /// Waits and doubles the pause. Returns true when the service stops.
    async fn wait(&self, pause: &mut Duration) -> bool {
        let stopped = tokio::select! {
            () = self.stop.cancelled() => true,
            () = sleep(*pause) => false,
        };
        *pause = (*pause * 2).min(LONGEST_PAUSE);
        stopped
    }
}

/// For each partition of a batch the offset behind its last message.
fn next_offsets(batch: &[Message]) -> HashMap<i32, i64> {
    let mut next: HashMap<i32, i64> = HashMap::new();
    for message in batch {
        let Position { partition, offset } = message.position;
        let known = next.entry(partition).or_default();
        *known = (offset + 1).max(*known);
    }
    next
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The original headers, and why, from where and when the message was set aside.
fn dead_letter_headers(letter: &DeadLetter) -> OwnedHeaders {
    let partition = letter.partition.to_string();
    let offset = letter.offset.to_string();
    let at = letter
        .parked_at
        .to_rfc3339_opts(SecondsFormat::Millis, true);
    let added = [
        ("dead-letter-reason", letter.reason.as_str()),
        ("dead-letter-consumer", letter.consumer.as_str()),
        ("dead-letter-topic", letter.topic.as_str()),
        ("dead-letter-partition", partition.as_str()),
        ("dead-letter-offset", offset.as_str()),
        ("dead-letter-at", at.as_str()),
    ];
    let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len() + added.len());
    for (key, value) in &letter.headers {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    for (key, value) in added {
        headers = headers.insert(Header {
            key,
            value: Some(value),
        });
    }
    headers
}
