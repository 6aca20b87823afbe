//! The port to the log: topics in partitions that keep records in order, published to with acknowledgement, read by groups whose
//! positions are kept, or by assignment.
//!
//! What an adapter must hold to: records of one partition are read in the order in which they were published; a record whose
//! publication was acknowledged is read by everybody; one whose publication failed may be in the log all the same, once or more often.
//! Offsets grow and have holes: of transaction markers, of compaction.

mod read_errors;
mod records_at;

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tandem_model::message::{Message, Position};

pub use read_errors::{ReadErrors, Told};
pub use records_at::{record_at, records_at};

/// For each partition the offset of the next record to read.
pub type Offsets = BTreeMap<i32, i64>;

/// For each partition the first offset that is kept, and the one behind the last record that readers are shown.
pub type Ends = BTreeMap<i32, (i64, i64)>;

/// Why the log did not do as asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// A setting that the client does not know or take: trying again does not help.
    #[error("{0}")]
    Settings(String),
    /// It does not answer, or not in time.
    #[error("the log is away: {0}")]
    Away(String),
    /// It cannot be reached, and why, as a sentence.
    #[error("{0}")]
    Unreachable(String),
    /// The topic was made a moment ago and its partitions are not known everywhere yet; asking again will work.
    #[error("the log does not know the partitions of {0} yet")]
    NoPartitions(String),
    /// This reader cannot go on: a new one may.
    #[error("the reader cannot go on: {0}")]
    Ended(String),
    /// It answers, and something that is in it cannot be read: what and why, as a sentence.
    #[error("{0}")]
    Unreadable(String),
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The log will never take this record, as it is and as the topic is: it is too large, or breaks a rule of the topic.
    #[error("{0}")]
    Refused(String),
    /// Nothing is wrong with this record: another one of its batch was refused.
    #[error("{0}")]
    Neighbour(String),
    /// The publisher holds as many records as it may; there is room again when some are acknowledged.
    #[error("{0}")]
    Full(String),
    /// The log does not answer, or not in time: whether it has the record is unknown.
    #[error("{0}")]
    Away(String),
}

/// A record to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Its key: records of one key go to one partition.
    pub key: &'a str,
    /// Its headers, in order.
    pub headers: Vec<(&'a str, Cow<'a, [u8]>)>,
    /// Its body; `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// A record without headers; a tombstone if `payload` is `None`.
    #[must_use]
    pub fn new(topic: &'a str, key: &'a str, payload: Option<&'a [u8]>) -> Self {
        Self {
            topic,
            key,
            headers: Vec::new(),
            payload,
        }
    }
}

/// How soon a reader hears of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// At once.
    Prompt,
    /// Within this time: the brokers gather, and give one answer where they gave many.
    Patient(Duration),
}

/// What a topic is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// What tells this topic from one of the same name that is made after it was deleted; `None` where the client cannot tell.
    pub identity: Option<String>,
    /// Its partitions, each with its ends.
    pub ends: Ends,
}

/// A member of a group that is to be.
#[derive(Clone)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// What it reads.
    pub topic: &'static str,
    /// How soon it hears of a record.
    pub attention: Attention,
    /// Told every few seconds how many records of its partitions are behind its stored positions.
    pub on_lag: Arc<dyn Fn(i64) + Send + Sync>,
    /// Takes note of what cannot be read.
    pub errors: ReadErrors,
}

impl Debug for Membership {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Membership")
            .field("group", &self.group)
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

/// A log with topics.
#[async_trait]
pub trait Log: Debug + Send + Sync + 'static {
    /// Waits until the topics that the service needs are known to be there. Returns false if the service stops before.
    async fn ready(&self) -> bool;

    /// Why the log has not been reached yet, as a sentence; `None` when it has.
    fn failure(&self) -> Option<String>;

    /// What tails cannot read, and have tried to for some time, as sentences. Members tell of theirs by [`Membership::errors`].
    fn unreadable(&self) -> Vec<String> {
        Vec::new()
    }

    /// The name of the system whose log it is, where that is known.
    fn system(&self) -> Option<Arc<str>> {
        None
    }

    /// Most bytes of a record that it takes: key, headers, body and framing together.
    fn largest_record(&self) -> usize;

    /// A publisher of its own, for many records at once.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError>;

    /// Publishes a single record; returns where it is when it is acknowledged, after 20 s at most.
    ///
    /// # Errors
    /// When it is not acknowledged in that time.
    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError>;

    /// What a topic is now.
    ///
    /// # Errors
    /// When the log does not answer within 10 s.
    async fn topic(&self, topic: &str) -> Result<TopicState, LogError>;

    /// For each partition of a topic its first offset, and the one behind its last record whether readers are shown that yet or not: what
    /// lies behind a transaction that is open is not.
    ///
    /// # Errors
    /// When the log does not answer within 10 s.
    async fn uncommitted_ends(&self, topic: &str) -> Result<Ends, LogError> {
        Ok(self.topic(topic).await?.ends)
    }

    /// Whether a group has members now.
    ///
    /// # Errors
    /// When that cannot be told now; it may have some.
    async fn has_members(&self, group: &str) -> Result<bool, LogError> {
        Err(LogError::Away(format!(
            "this log does not tell who is in the group {group}"
        )))
    }

    /// A reader of all partitions that `from` names, from there on.
    ///
    /// # Errors
    /// When it cannot be opened now.
    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError>;

    /// A member of a group, which reads once it has subscribed.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError>;
}

/// Publishes many records at once. Records of one partition that are on their way at the same time arrive in the order in which they
/// were given.
pub trait Publisher: Debug + Send + Sync {
    /// Takes a record on its way; the future ends when it is acknowledged, or given up after half a minute at most.
    ///
    /// # Errors
    /// When it is not even taken on its way.
    fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<BoxFuture<'static, Result<Position, PublishError>>, PublishError>;
}

/// What comes out of a tail.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// A record.
    Record(Message),
    /// Of this partition everything was read that was in it when the log was asked last, whatever holes are at its end. It was asked after
    /// the tail was assigned.
    End(i32),
}

/// Reads by assignment, outside of any group.
#[async_trait]
pub trait Tail: Debug + Send + Sync {
    /// Reads on from there; what was read ahead is dropped.
    ///
    /// # Errors
    /// When the client does not take the assignment.
    fn assign(&self, from: &Offsets) -> Result<(), LogError>;

    /// What comes next; waits for it, however long the log is away meanwhile. Safe to cancel.
    ///
    /// # Errors
    /// [`LogError::Ended`] when this reader cannot go on, and [`LogError::Unreadable`] when it could not read something for some seconds: a
    /// new one may.
    async fn next(&self) -> Result<Arrival, LogError>;

    /// What comes next if it is here already.
    fn next_ready(&self) -> Option<Arrival>;
}

/// Reads as a member of a group, which shares the partitions of a topic among its members and keeps a position in each.
#[async_trait]
pub trait Member: Send + Sync {
    /// Begins to read.
    ///
    /// # Errors
    /// When the client does not take the subscription now.
    fn subscribe(&self) -> Result<(), LogError>;

    /// The next record of an assigned partition; waits for it. Safe to cancel.
    ///
    /// # Errors
    /// What the client says of its connection: it goes on by itself, and is to be asked again.
    async fn next(&self) -> Result<Message, LogError>;

    /// The next record if it is here already.
    fn next_ready(&self) -> Option<Message>;

    /// Whether partitions came or went since this was asked last; true at first.
    fn was_reassigned(&self) -> bool;

    /// Notes positions, which are committed within half a second: everything before them is done.
    ///
    /// # Errors
    /// When a partition is another member's meanwhile.
    fn store(&self, next: &Offsets) -> Result<(), LogError>;

    /// Commits the noted positions now. It blocks.
    ///
    /// # Errors
    /// When the log does not take them.
    fn commit(&self) -> Result<(), LogError>;

    /// Stops the flow of records; the membership is kept alive by asking for the next one. Partitions that are assigned later flow until
    /// this is called again.
    fn pause(&self);

    /// Lets everything flow that was paused.
    fn resume(&self);

    /// Commits the noted positions and leaves the group. Returns false if that was not done within `limit`; it is then left to itself.
    async fn leave(self: Box<Self>, limit: Duration) -> bool;
}
