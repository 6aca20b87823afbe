//! Rebuilds a store from the log: every event from the beginning, the newest revision of each aggregate written once.
//!
//! What is rebuilt replaces what is stored aggregate by aggregate, each in one step and never by an older revision. So a
//! reader never sees less than before, commands go on meanwhile on every instance, an interruption at any point leaves
//! nothing half-built, and starting again is always right. `docs/decisions/0003-rebuild-in-place.md` says why this and not a swap.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rdkafka::error::KafkaError;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{
    aggregate::Aggregate,
    commands::Gate,
    consumer::Projection,
    kafka::{
        connection::Kafka,
        message::{Message, Position},
        tail::{self, LogTail, Offsets, TailError},
    },
    shutdown::Shutdown,
    store::{AggregateStore, Registry, StoreError},
};

/// Messages taken at once: the more, the more revisions of one aggregate collapse into one write.
const BATCH: usize = 10_000;
/// So many messages behind the end, after two rounds, is the end.
const NEAR: u64 = 1_000;
/// How long the log may be silent before the rebuild gives up.
const SILENCE: Duration = Duration::from_secs(30);
/// First and longest pause while the store is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What a rebuild has done so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being rebuilt.
    pub target: String,
    /// Messages read.
    pub read: u64,
    /// Messages to read; grows while the log does.
    pub total: u64,
    /// Aggregates or entries written: less than read where several revisions collapsed into one write.
    pub written: u64,
    /// Messages that cannot be taken; they are dead letters of the consumer of this topic.
    pub refused: u64,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether everything is read and written.
    pub done: bool,
}

/// Why a rebuild ended early. It can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] TailError),
    /// The log went silent before its end.
    #[error("nothing came from {topic} for {} s, {read} of {total} messages read", SILENCE.as_secs())]
    Silent {
        /// Which topic.
        topic: &'static str,
        /// Messages read.
        read: u64,
        /// Messages to read.
        total: u64,
    },
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}

/// Something that is rebuilt from a topic.
#[async_trait]
pub trait Rebuilt: Send + Sync + 'static {
    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// The topic it is rebuilt from.
    fn topic(&self) -> &'static str;

    /// Takes messages, in order within each partition. Returns how many writes they made and how many were refused.
    ///
    /// # Errors
    /// When the store is away: the same messages are given again.
    async fn take(&self, messages: &[Message]) -> Result<(u64, u64), StoreError>;
}

/// Makes states of messages.
#[async_trait]
pub trait ReadStates<A>: Send + Sync + 'static {
    /// The state after each change, of the messages that can be read.
    ///
    /// # Errors
    /// When what it takes to read them is away: the same messages are given again.
    async fn read(&self, messages: &[Message]) -> Result<Vec<A>, StoreError>;
}

/// Rebuilds aggregates: of each, the newest revision of a batch is restored.
pub struct RebuildAggregates<A: Aggregate> {
    store: Arc<dyn AggregateStore<A>>,
    topic: &'static str,
    reader: Arc<dyn ReadStates<A>>,
}

impl<A: Aggregate> RebuildAggregates<A> {
    /// Rebuilds this store from this topic, as this reader reads it.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<A>>,
        topic: &'static str,
        reader: Arc<dyn ReadStates<A>>,
    ) -> Self {
        Self {
            store,
            topic,
            reader,
        }
    }
}

#[async_trait]
impl<A: Aggregate> Rebuilt for RebuildAggregates<A> {
    fn name(&self) -> &'static str {
        A::COLLECTION
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    async fn take(&self, messages: &[Message]) -> Result<(u64, u64), StoreError> {
        let mut newest: HashMap<String, A> = HashMap::new();
        let read = self.reader.read(messages).await?;
        let refused = messages.len().saturating_sub(read.len()) as u64;
        for state in read {
            let known = newest.get(state.id()).map_or(0, Aggregate::revision);
            if state.revision() > known {
                newest.insert(state.id().to_owned(), state);
            }
        }
        let states: Vec<A> = newest.into_values().collect();
        let written = states.len() as u64;
        self.store.restore(states).await?;
        Ok((written, refused))
    }
}

/// Rebuilds what a projection keeps: its messages are applied again.
pub struct RebuildProjection<P> {
    projection: Arc<P>,
    topic: &'static str,
}

impl<P: Projection> RebuildProjection<P> {
    /// Applies this topic again.
    #[must_use]
    pub fn new(projection: Arc<P>, topic: &'static str) -> Self {
        Self { projection, topic }
    }
}

#[async_trait]
impl<P: Projection> Rebuilt for RebuildProjection<P> {
    fn name(&self) -> &'static str {
        self.projection.name()
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    async fn take(&self, messages: &[Message]) -> Result<(u64, u64), StoreError> {
        let items: Vec<(Position, P::Item)> = messages
            .iter()
            .filter_map(|message| Some((message.position, self.projection.decode(message).ok()?)))
            .collect();
        let taken = items.len() as u64;
        self.projection.apply_again(items).await?;
        Ok((taken, messages.len() as u64 - taken))
    }
}

/// Fills a new, empty store from the log, then opens the gate. A store that was filled before opens it at once.
///
/// Runs in the background and goes on trying until it is done or the service stops.
pub fn fill_new_store(
    registry: Arc<dyn Registry>,
    targets: Vec<Arc<dyn Rebuilt>>,
    kafka: Kafka,
    gate: Gate,
    shutdown: &Shutdown,
) {
    let stop = shutdown.token();
    shutdown.spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            match fill(registry.as_ref(), &targets, &kafka, &stop).await {
                Ok(()) => {
                    gate.let_through();
                    return;
                }
                Err(FillError::Rebuild(RebuildError::Stopping)) => return,
                Err(error) => {
                    tracing::warn!(%error, ?pause, "the new store could not be filled from the log; trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    });
}

/// Under this name a store remembers that it was filled.
const FILLED: &str = "filled";

/// Remembers that a store holds what the log holds, so that it is not filled again.
///
/// # Errors
/// When the store does not answer.
pub async fn mark_filled(registry: &dyn Registry) -> Result<(), StoreError> {
    registry.remember(FILLED, "yes").await.map(drop)
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

async fn fill(
    registry: &dyn Registry,
    targets: &[Arc<dyn Rebuilt>],
    kafka: &Kafka,
    stop: &CancellationToken,
) -> Result<(), FillError> {
    if registry.recall(FILLED).await?.is_some() {
        return Ok(());
    }
    tokio::select! {
        () = stop.cancelled() => return Err(RebuildError::Stopping.into()),
        _ = kafka.ready() => {}
    }
    for target in targets {
        let done = rebuild(target.as_ref(), kafka, stop, |_| {}).await?;
        if done.read > 0 {
            tracing::info!(
                target_name = done.target,
                read = done.read,
                written = done.written,
                "a new store was filled from the log"
            );
        }
    }
    Ok(mark_filled(registry).await?)
}

/// Rebuilds one target from the beginning of its topic to its end, and on to where the end has moved meanwhile.
///
/// `tell` hears of every step.
///
/// # Errors
/// See [`RebuildError`].
pub async fn rebuild(
    target: &dyn Rebuilt,
    kafka: &Kafka,
    stop: &CancellationToken,
    mut tell: impl FnMut(Progress) + Send,
) -> Result<Progress, RebuildError> {
    let begun = Instant::now();
    let topic = target.topic();
    let mut progress = Progress {
        target: target.name().to_owned(),
        ..Progress::default()
    };
    let mut from: Option<Offsets> = None;
    let mut rounds = 0;
    loop {
        let ends = tail::ends(kafka, topic).await?;
        let start = from.take().unwrap_or_else(|| {
            ends.iter()
                .map(|(partition, (low, _))| (*partition, *low))
                .collect()
        });
        let mut left: HashMap<i32, i64> = ends
            .iter()
            .filter_map(|(partition, (low, high))| {
                let next = start.get(partition).copied().unwrap_or(*low);
                (next < *high).then_some((*partition, *high))
            })
            .collect();
        let to_read: i64 = left
            .iter()
            .map(|(partition, high)| high - start.get(partition).copied().unwrap_or_default())
            .sum();
        // Under traffic the end is never reached for good: what came during the last short round came the live way too.
        rounds += 1;
        let to_read = u64::try_from(to_read).unwrap_or_default();
        let is_near = rounds > 2 && to_read < NEAR;
        progress.total = progress.read + if is_near { 0 } else { to_read };
        progress.seconds = begun.elapsed().as_secs_f64();
        if left.is_empty() || is_near {
            progress.done = true;
            tell(progress.clone());
            return Ok(progress);
        }
        tell(progress.clone());
        let mut next = start.clone();
        let log = LogTail::open(kafka, topic, &start)?;
        while !left.is_empty() {
            let batch = read_batch(&log, &progress, topic, stop).await?;
            for message in &batch {
                let Position { partition, offset } = message.position;
                next.insert(partition, offset + 1);
                if left.get(&partition).is_some_and(|high| offset + 1 >= *high) {
                    left.remove(&partition);
                }
            }
            let (written, refused) = until_taken(target, &batch, stop).await?;
            progress.read += batch.len() as u64;
            progress.total = progress.total.max(progress.read);
            progress.written += written;
            progress.refused += refused;
            progress.seconds = begun.elapsed().as_secs_f64();
            tell(progress.clone());
        }
        from = Some(next);
    }
}

/// What is there, up to a batch; waits for the first message.
async fn read_batch(
    log: &LogTail,
    progress: &Progress,
    topic: &'static str,
    stop: &CancellationToken,
) -> Result<Vec<Message>, RebuildError> {
    let deadline = tokio::time::Instant::now() + SILENCE;
    let first = loop {
        tokio::select! {
            () = stop.cancelled() => return Err(RebuildError::Stopping),
            () = tokio::time::sleep_until(deadline) => {
                return Err(RebuildError::Silent { topic, read: progress.read, total: progress.total });
            }
            message = log.next() => match message {
                Ok(message) => break message,
                Err(error) => wait_out(&error).await,
            }
        }
    };
    let mut batch = vec![first];
    // A short wait fills the batch from what is on its way, so that more revisions collapse.
    let full = tokio::time::Instant::now() + Duration::from_millis(100);
    while batch.len() < BATCH {
        match tokio::time::timeout_at(full, log.next()).await {
            Ok(Ok(message)) => batch.push(message),
            Ok(Err(_)) | Err(_) => break,
        }
    }
    Ok(batch)
}

async fn wait_out(error: &KafkaError) {
    tracing::debug!(%error, "the log is being reached");
    tokio::time::sleep(FIRST_PAUSE).await;
}

/// Gives a batch to the target until it takes it.
async fn until_taken(
    target: &dyn Rebuilt,
    batch: &[Message],
    stop: &CancellationToken,
) -> Result<(u64, u64), RebuildError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match target.take(batch).await {
            Ok(taken) => return Ok(taken),
            Err(error) => {
                tracing::warn!(target_name = target.name(), %error, ?pause, "the store is away; trying again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Err(RebuildError::Stopping),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
