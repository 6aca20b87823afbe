//! The log that feeds read: a topic. It is behind a trait, so that the feeds can be tested without Kafka.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use tandem_event_path::{
    data_keys::Unopened,
    log::{self, Arrival, Ends, LogError, Offsets, Tail},
};
use tandem_model::message::Message;
use tandem_runtime::{
    backoff::{Backoff, Pauses},
    shutdown::Shutdown,
};

use super::{short_name::in_short, subscribers::Subscribers};

/// The pauses between two attempts to reach the log.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// The log does not answer now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log is away: {0}")]
pub struct LogAway(pub String);

/// How soon a reader gets a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// At once.
    Prompt,
    /// Within half a second. The brokers collect messages and send one answer instead of many.
    Patient,
}

/// Logs that a change is not sent live yet, because it cannot be opened. Most such changes can be opened a moment
/// later. If one waits long, the projection that keeps it logs a warning.
pub(super) fn waits(feed: &str, unopened: &Unopened) {
    tracing::debug!(
        feed,
        subject = unopened.subject,
        reason = unopened.reason,
        "a change waits for its data key; it is told live when that comes"
    );
}

/// A log with partitions.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// For each partition, the first offset that is kept and the offset after the last message.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn ends(&self) -> Result<Ends, LogAway>;

    /// The system that owns the log, as the four-byte short name in cursors. It is known when [`Self::ends`] has
    /// answered, if there is a system.
    fn system(&self) -> Option<u32> {
        None
    }

    /// Opens a reader of every partition, from these offsets on.
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
    /// The next message. It waits for as long as it takes. Cancel-safe.
    ///
    /// # Errors
    /// When this reader cannot continue. A new reader may.
    async fn next(&mut self) -> Result<Message, LogAway>;
}

/// How long the brokers may collect messages for a patient reader.
const PATIENCE: Duration = Duration::from_millis(500);

/// A topic of the service's log.
#[derive(Clone, Debug)]
pub struct Topic {
    log: Arc<dyn log::Log>,
    topic: &'static str,
    /// Computed once, because every cursor contains it.
    system: OnceLock<u32>,
}

impl Topic {
    /// Creates the log of this topic.
    #[must_use]
    pub fn new(log: &Arc<dyn log::Log>, topic: &'static str) -> Self {
        Self {
            log: Arc::clone(log),
            topic,
            system: OnceLock::new(),
        }
    }
}

impl From<LogError> for LogAway {
    fn from(error: LogError) -> Self {
        Self(match error {
            LogError::Unavailable(reason) => reason,
            other => other.to_string(),
        })
    }
}

#[async_trait]
impl Log for Topic {
    fn system(&self) -> Option<u32> {
        if let Some(system) = self.system.get() {
            return Some(*system);
        }
        let name = self.log.system()?;
        Some(*self.system.get_or_init(|| in_short(&name)))
    }

    async fn ends(&self) -> Result<Ends, LogAway> {
        if !self.log.ready().await {
            return Err(LogAway("the service stops".to_owned()));
        }
        Ok(self.log.topic(self.topic).await?.ends)
    }

    async fn open(
        &self,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn LogReader>, LogAway> {
        let attention = match attention {
            Attention::Prompt => log::Attention::Prompt,
            Attention::Patient => log::Attention::Patient(PATIENCE),
        };
        Ok(Box::new(Reader(
            self.log.tail(self.topic, from, attention)?,
        )))
    }
}

struct Reader(Box<dyn Tail>);

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Message, LogAway> {
        loop {
            if let Arrival::Record(message) = self.0.next().await? {
                return Ok(message);
            }
        }
    }
}

/// Begins a feed. Opens a reader where its subscribers need it to begin, and returns where the log ended at that time.
/// Retries until it succeeds. `None` when the service stops.
pub(super) async fn begin<T: Clone>(
    log: &dyn Log,
    subscribers: &Subscribers<T>,
    feed: &'static str,
    shutdown: &Shutdown,
) -> Option<(Box<dyn LogReader>, Offsets)> {
    let mut pauses = BACKOFF.pauses(shutdown.clock());
    loop {
        let begun = tokio::select! {
            biased;
            () = shutdown.requested() => return None,
            begun = try_begin(log, subscribers) => begun,
        };
        let pause = pauses.next_pause();
        match begun {
            Ok(begun) => return Some(begun),
            Err(error) => {
                tracing::warn!(feed, %error, ?pause, "live updates wait for the log");
            }
        }
        if !shutdown.sleep(pause).await {
            return None;
        }
    }
}

async fn try_begin<T: Clone>(
    log: &dyn Log,
    subscribers: &Subscribers<T>,
) -> Result<(Box<dyn LogReader>, Offsets), LogAway> {
    let ends = log.ends().await?;
    let from = subscribers.begin(&ends);
    let reader = log.open(&from, Attention::Prompt).await?;
    let ends = ends
        .into_iter()
        .map(|(partition, (_, next))| (partition, next))
        .collect();
    Ok((reader, ends))
}

/// The next message. It waits for as long as the log is away. A reader that cannot continue is replaced by one that
/// begins at `seen`. `None` when the service stops. Cancel-safe.
pub(super) async fn next_message(
    log: &dyn Log,
    reader: &mut Box<dyn LogReader>,
    attention: Attention,
    seen: impl Fn() -> Arc<Offsets> + Send,
    feed: &'static str,
    shutdown: &Shutdown,
) -> Option<Message> {
    // Failures are rare. The usual message does not take randomness from the clock for the pauses.
    let mut pauses: Option<Pauses> = None;
    loop {
        let next = tokio::select! {
            biased;
            () = shutdown.requested() => return None,
            next = reader.next() => next,
        };
        let error = match next {
            Ok(message) => return Some(message),
            Err(error) => error,
        };
        let pause = pauses
            .get_or_insert_with(|| BACKOFF.pauses(shutdown.clock()))
            .next_pause();
        tracing::warn!(feed, %error, ?pause, "live updates wait for the log");
        if !shutdown.sleep(pause).await {
            return None;
        }
        match log.open(&seen(), attention).await {
            Ok(fresh) => *reader = fresh,
            Err(error) => tracing::warn!(feed, %error, "the log cannot be opened again yet"),
        }
    }
}
