//! The port to the log. A log has topics, and the partitions of a topic keep records in order. Publishing is
//! acknowledged. Records are read by consumer groups, whose positions are stored, or by assignment.
//!
//! Every adapter must keep these rules:
//!
//! * Records of one partition are read in the order in which they were published.
//! * Every reader gets a record whose publication was acknowledged.
//! * A record whose publication failed may still be in the log, once or several times.
//! * Offsets grow and have gaps, which transaction markers and compaction leave.

mod read_errors;
mod records_at;

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::future::BoxFuture;
use tandem_model::message::{Message, Position};

pub use read_errors::{ReadErrors, Told};
pub use records_at::{record_at, records_at};

/// The offset of the next record to read, for each partition.
pub type Offsets = BTreeMap<i32, i64>;

/// For each partition, the first offset that is kept, and the offset behind the last record that readers can see.
pub type Ends = BTreeMap<i32, (i64, i64)>;

/// Why a request to the log failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// The client does not know or does not accept a setting. A retry does not help.
    #[error("{0}")]
    Settings(String),
    /// The log does not answer, or not in time.
    #[error("the log is away: {0}")]
    Unavailable(String),
    /// The log cannot be reached. Holds the reason as a sentence.
    #[error("{0}")]
    Unreachable(String),
    /// The topic was created a moment ago, and its partitions are not known everywhere yet. A retry will work.
    #[error("the log does not know the partitions of {0} yet")]
    NoPartitions(String),
    /// This reader cannot go on. A new one may.
    #[error("the reader cannot go on: {0}")]
    Ended(String),
    /// The log answers, but something in it cannot be read. Holds what and why, as a sentence.
    #[error("{0}")]
    Unreadable(String),
}

/// Why a record was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The log will never take this record while the topic is as it is now. The record is too large, or breaks a rule
    /// of the topic.
    #[error("{0}")]
    Refused(String),
    /// This record is fine, but another one in its batch was refused.
    #[error("{0}")]
    Neighbour(String),
    /// The publisher's buffer is full. There is room again when some records are acknowledged.
    #[error("{0}")]
    Full(String),
    /// The log does not answer, or not in time. Whether it has the record is unknown.
    #[error("{0}")]
    Unavailable(String),
}

/// A record to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key. Records of one key go to one partition.
    pub key: &'a str,
    /// The headers, in order.
    pub headers: Vec<(&'a str, Cow<'a, [u8]>)>,
    /// The body. `None` for a tombstone.
    pub payload: Option<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// A record without headers. It is a tombstone if `payload` is `None`.
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

/// How soon a reader gets a new record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// At once.
    Prompt,
    /// Within this time. The brokers collect records and send fewer, larger answers.
    Patient(Duration),
}

/// The present state of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// Distinguishes this topic from one of the same name that is created after it was deleted. `None` if the client
    /// cannot tell.
    pub identity: Option<String>,
    /// The partitions, each with its ends.
    pub ends: Ends,
}

/// How to join a consumer group.
#[derive(Clone)]
pub struct Membership {
    /// The group.
    pub group: String,
    /// The topic that the member reads.
    pub topic: &'static str,
    /// How soon the member gets a new record.
    pub attention: Attention,
    /// Called every few seconds with the lag: the number of records in the member's partitions behind its stored
    /// positions.
    pub on_lag: Arc<dyn Fn(i64) + Send + Sync>,
    /// Notes what cannot be read.
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
    /// Waits until the topics that the service needs are known to exist. Returns false if the service stops before.
    async fn ready(&self) -> bool;

    /// Why the log has not been reached yet, as a sentence. `None` once it has been reached.
    fn failure(&self) -> Option<String>;

    /// What tails have failed to read for some time, as sentences. Members report theirs through
    /// [`Membership::errors`].
    fn unreadable(&self) -> Vec<String> {
        Vec::new()
    }

    /// The name of the system to which the log belongs, if it is known.
    fn system(&self) -> Option<Arc<str>> {
        None
    }

    /// Most bytes of a record that the log takes: key, headers, body and framing together.
    fn largest_record(&self) -> usize;

    /// Makes a publisher for many records at once.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError>;

    /// Publishes one record. Returns its position when it is acknowledged, after 20 s at most.
    ///
    /// # Errors
    /// When it is not acknowledged in that time.
    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError>;

    /// The present state of a topic.
    ///
    /// # Errors
    /// When the log does not answer within 10 s.
    async fn topic(&self, topic: &str) -> Result<TopicState, LogError>;

    /// For each partition of a topic, its first offset and the offset behind its last record. Unlike
    /// [`TopicState::ends`], this counts records that readers cannot see yet, because they lie behind an open
    /// transaction.
    ///
    /// # Errors
    /// When the log does not answer within 10 s.
    async fn uncommitted_ends(&self, topic: &str) -> Result<Ends, LogError> {
        Ok(self.topic(topic).await?.ends)
    }

    /// Whether a group has members now.
    ///
    /// # Errors
    /// When this is not known now. The group may have members.
    async fn has_members(&self, group: &str) -> Result<bool, LogError> {
        Err(LogError::Unavailable(format!(
            "this log does not tell who is in the group {group}"
        )))
    }

    /// Makes a reader of all partitions that `from` names, from those offsets on.
    ///
    /// # Errors
    /// When it cannot be opened now.
    fn tail(
        &self,
        topic: &'static str,
        from: &Offsets,
        attention: Attention,
    ) -> Result<Box<dyn Tail>, LogError>;

    /// Makes a member of a group. The member reads after it has subscribed.
    ///
    /// # Errors
    /// When a setting is wrong.
    fn join(&self, membership: Membership) -> Result<Box<dyn Member>, LogError>;
}

/// Publishes many records at once. Records of one partition that are in flight together arrive in the order in which
/// they were given.
pub trait Publisher: Debug + Send + Sync {
    /// Starts to publish a record. The future ends when the record is acknowledged, or with an error after half a
    /// minute at most.
    ///
    /// # Errors
    /// When the publisher does not accept the record at all.
    fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<BoxFuture<'static, Result<Position, PublishError>>, PublishError>;
}

/// What a tail returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// A record.
    Record(Message),
    /// The tail has read all of this partition, up to the end that the log reported last, including gaps at that end.
    /// The log was asked after the tail was assigned.
    End(i32),
}

/// Reads by assignment, outside of any consumer group.
#[async_trait]
pub trait Tail: Debug + Send + Sync {
    /// Continues reading from these offsets. Records that were read ahead are dropped.
    ///
    /// # Errors
    /// When the client does not accept the assignment.
    fn assign(&self, from: &Offsets) -> Result<(), LogError>;

    /// Waits for the next arrival, even while the log is unavailable. Safe to cancel.
    ///
    /// # Errors
    /// [`LogError::Ended`] when this reader cannot go on. [`LogError::Unreadable`] when something could not be read for
    /// some seconds. A new reader may succeed in both cases.
    async fn next(&self) -> Result<Arrival, LogError>;

    /// The next arrival, if it is here already.
    fn next_ready(&self) -> Option<Arrival>;
}

/// Reads as a member of a consumer group. The group shares the partitions of a topic among its members and stores a
/// position in each partition.
#[async_trait]
pub trait Member: Send + Sync {
    /// Begins to read.
    ///
    /// # Errors
    /// When the client does not accept the subscription now.
    fn subscribe(&self) -> Result<(), LogError>;

    /// Waits for the next record of an assigned partition. Safe to cancel.
    ///
    /// # Errors
    /// What the client reports about its connection. The client recovers by itself; call this again.
    async fn next(&self) -> Result<Message, LogError>;

    /// The next record, if it is here already.
    fn next_ready(&self) -> Option<Message>;

    /// Whether partitions were assigned or revoked since the last call. True at the first call.
    fn was_reassigned(&self) -> bool;

    /// Notes positions, which are committed within half a second. Everything before them is done.
    ///
    /// # Errors
    /// When a partition has been assigned to another member.
    fn store(&self, next: &Offsets) -> Result<(), LogError>;

    /// Commits the noted positions now. Blocks the thread.
    ///
    /// # Errors
    /// When the log does not take the positions.
    fn commit(&self) -> Result<(), LogError>;

    /// Stops the flow of records. The caller must go on asking for the next record to stay a member. Partitions that
    /// are assigned later flow until this is called again.
    fn pause(&self);

    /// Resumes all partitions.
    fn resume(&self);

    /// Commits the noted positions and leaves the group. Returns false if that was not done within `limit`. It then
    /// goes on by itself.
    async fn leave(self: Box<Self>, limit: Duration) -> bool;
}
