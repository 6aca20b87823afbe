//! The log that feeds read: a topic, behind a trait so that the feeds' rules can be tested without Kafka.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use tandem_kit::{
    kafka::{
        connection::Kafka,
        message::Message,
        tail::{self, LogTail, Offsets},
    },
    shutdown::Shutdown,
};

use super::audience::Audience;

/// First and longest pause between two tries to reach the log.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The log does not answer now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log is away: {0}")]
pub struct LogAway(pub String);

/// How soon a reader hears of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// At once.
    Prompt,
    /// Within half a second: the brokers gather, and give one answer where they gave many.
    Patient,
}

/// A log in partitions.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// For each partition the first offset that is kept, and the one behind the last message.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, LogAway>;

    /// A reader of every partition, from these offsets on.
    ///
    /// # Errors
    /// When it cannot be opened now.
    async fn open(
        &self,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn LogReader>, LogAway>;
}

/// Reads a log, in order within each partition.
#[async_trait]
pub trait LogReader: Send + Sync {
    /// The next message; waits for it, however long. Safe to cancel.
    ///
    /// # Errors
    /// When this reader cannot go on: a new one may.
    async fn next(&mut self) -> Result<Message, LogAway>;
}

/// A topic of Kafka.
#[derive(Clone, Debug)]
pub struct KafkaLog {
    kafka: Kafka,
    topic: &'static str,
}

impl KafkaLog {
    /// This topic.
    #[must_use]
    pub fn new(kafka: Kafka, topic: &'static str) -> Self {
        Self { kafka, topic }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn ends(&self) -> Result<BTreeMap<i32, (i64, i64)>, LogAway> {
        if !self.kafka.ready().await {
            return Err(LogAway("the service stops".to_owned()));
        }
        tail::ends(&self.kafka, self.topic)
            .await
            .map_err(|error| LogAway(error.to_string()))
    }

    async fn open(
        &self,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn LogReader>, LogAway> {
        let tail = match attention {
            Attention::Prompt => LogTail::open(&self.kafka, self.topic, from),
            Attention::Patient => LogTail::open_patient(&self.kafka, self.topic, from),
        };
        let tail = tail.map_err(|error| LogAway(error.to_string()))?;
        Ok(Box::new(KafkaReader(tail)))
    }
}

struct KafkaReader(LogTail);

#[async_trait]
impl LogReader for KafkaReader {
    async fn next(&mut self) -> Result<Message, LogAway> {
        self.0
            .next()
            .await
            .map_err(|error| LogAway(error.to_string()))
    }
}

/// Begins a feed: opens a reader where its audience wants it to begin and tells where the log ended then. Tries until it
/// succeeds. `None` when the service stops.
pub(super) async fn begin<T: Clone>(
    log: &dyn Log,
    audience: &Audience<T>,
    feed: &'static str,
    shutdown: &Shutdown,
) -> Option<(Box<dyn LogReader>, Offsets)> {
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = tokio::select! {
            () = shutdown.requested() => return None,
            begun = try_begin(log, audience) => begun,
        };
        match begun {
            Ok(begun) => return Some(begun),
            Err(error) => {
                tracing::warn!(feed, %error, ?pause, "live updates wait for the log");
            }
        }
        if !shutdown.sleep(pause).await {
            return None;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn try_begin<T: Clone>(
    log: &dyn Log,
    audience: &Audience<T>,
) -> Result<(Box<dyn LogReader>, Offsets), LogAway> {
    let ends = log.ends().await?;
    let from = audience.begin(&ends);
    let reader = log.open(&from, Attention::Prompt).await?;
    let ends = ends
        .into_iter()
        .map(|(partition, (_, next))| (partition, next))
        .collect();
    Ok((reader, ends))
}

/// The next message, however long the log is away meanwhile. A reader that cannot go on is replaced by one that begins
/// at `seen`. `None` when the service stops. Safe to cancel.
pub(super) async fn next_message(
    log: &dyn Log,
    reader: &mut Box<dyn LogReader>,
    attention: Attention,
    seen: impl Fn() -> Offsets + Send,
    feed: &'static str,
    shutdown: &Shutdown,
) -> Option<Message> {
    let mut pause = FIRST_PAUSE;
    loop {
        let next = tokio::select! {
            () = shutdown.requested() => return None,
            next = reader.next() => next,
        };
        match next {
            Ok(message) => return Some(message),
            Err(error) => {
                tracing::warn!(feed, %error, ?pause, "live updates wait for the log");
            }
        }
        if !shutdown.sleep(pause).await {
            return None;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
        match log.open(&seen(), attention).await {
            Ok(fresh) => replace(reader, fresh),
            Err(error) => tracing::warn!(feed, %error, "the log cannot be opened again yet"),
        }
    }
}

/// Puts a fresh reader in the place of another, which ends on a thread that may block: its connections have to be closed.
pub(super) fn replace(reader: &mut Box<dyn LogReader>, fresh: Box<dyn LogReader>) {
    let old = std::mem::replace(reader, fresh);
    tokio::task::spawn_blocking(move || drop(old));
}
