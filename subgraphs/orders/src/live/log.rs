//! The log that feeds read: a topic, behind a trait so that the feeds' rules can be tested without Kafka.

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

/// The pauses between two tries to reach the log.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

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

/// Says that a change is not told live yet, because it does not open. Most open a moment later; of what waits long, the projection that
/// keeps it warns.
pub(super) fn waits(feed: &str, unopened: &Unopened) {
    tracing::debug!(
        feed,
        subject = unopened.subject,
        reason = unopened.reason,
        "a change waits for its data key; it is told live when that comes"
    );
}

/// A log in partitions.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// For each partition the first offset that is kept, and the one behind the last message.
    ///
    /// # Errors
    /// When the log does not answer.
    async fn ends(&self) -> Result<Ends, LogAway>;

    /// The system whose log it is, in the four bytes by which cursors name it, where that is known: it is once [`Self::ends`] has
    /// answered, if there is one.
    fn system(&self) -> Option<u32> {
        None
    }

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

/// How long the brokers may gather for a patient reader.
const PATIENCE: Duration = Duration::from_millis(500);

/// A topic of the service's log.
#[derive(Clone, Debug)]
pub struct Topic {
    log: Arc<dyn log::Log>,
    topic: &'static str,
    /// Every cursor has it, so it is worked out once.
    system: OnceLock<u32>,
}

impl Topic {
    /// This topic.
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
            LogError::Away(reason) => reason,
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

/// Begins a feed: opens a reader where its subscribers wants it to begin and tells where the log ended then. Tries until it
/// succeeds. `None` when the service stops.
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

/// The next message, however long the log is away meanwhile. A reader that cannot go on is replaced by one that begins
/// at `seen`. `None` when the service stops. Safe to cancel.
pub(super) async fn next_message(
    log: &dyn Log,
    reader: &mut Box<dyn LogReader>,
    attention: Attention,
    seen: impl Fn() -> Arc<Offsets> + Send,
    feed: &'static str,
    shutdown: &Shutdown,
) -> Option<Message> {
    // Hardly ever is there a failure: the usual message draws no chance for it.
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
