//! Schemas for the OpenAPI document, for types whose own crates do not know HTTP.
#![allow(dead_code)] // they describe what others write

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

/// Which letters: all, or those of one consumer, or of one key.
#[derive(ToSchema)]
pub(super) struct DeadLetterFilter {
    /// Only of this consumer.
    consumer: Option<String>,
    /// Only of this key.
    key: Option<String>,
}

/// Names one letter.
#[derive(ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LetterId {
    /// The consumer that refused it.
    consumer: String,
    /// Where it was read.
    topic: String,
    /// Where it was read.
    partition: i32,
    /// Where it was read.
    offset: i64,
}

/// An event that waits for its data key.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
pub(super) struct WaitingView {
    /// Who waits for it.
    reader: String,
    /// Whose data key it takes.
    subject: String,
    /// The message's key: the id of the aggregate.
    key: String,
    /// Where it is in the log.
    topic: String,
    /// Where it is in the log.
    partition: i32,
    /// Where it is in the log.
    offset: i64,
    /// Since when.
    since: DateTime<Utc>,
    /// Why it does not open.
    reason: String,
}

/// In what a log differs from what a store remembers of it.
#[derive(ToSchema)]
pub(super) struct Alarm {
    /// Which topic.
    topic: String,
    /// Which partition.
    partition: i32,
    /// In what, as a sentence.
    what: String,
}

/// A log that a store is made from.
#[derive(ToSchema)]
pub(super) struct LogView {
    /// Which topic.
    topic: String,
    /// What tells the topic from others of its name now; null where the client cannot tell.
    identity: Option<String>,
    /// Whether the log was compared with what is remembered of it: until then nobody knows whether it is the same.
    checked: bool,
    /// Its partitions, in order.
    partitions: Vec<PartitionView>,
}

/// One partition of a log.
#[derive(ToSchema)]
pub(super) struct PartitionView {
    /// Which one.
    partition: i32,
    /// The first offset that there is; null if the partition is not there.
    begin: Option<i64>,
    /// The offset behind the last message; null if the partition is not there.
    end: Option<i64>,
    /// Messages that are neither applied nor set aside, at most: where a transaction ended there is an offset without a message.
    unread: i64,
    /// What the store expects; null while nothing was applied.
    remembered: Option<Remembered>,
    /// In what the log differs from that.
    alarm: Option<String>,
}

/// What is remembered of one partition.
#[derive(ToSchema)]
pub(super) struct Remembered {
    /// The first offset that there was.
    begin: i64,
    /// The last message that was applied.
    last: Checkpoint,
    /// One that was applied before, and was found there when it was looked closely last.
    proven: Option<Checkpoint>,
    /// What told the topic from others of its name.
    identity: Option<String>,
}

/// A message that was applied.
#[derive(ToSchema)]
pub(super) struct Checkpoint {
    /// Its offset.
    offset: i64,
    /// Tells it from every other message: a part of the SHA-256 of its content.
    fingerprint: String,
}

/// How far a rebuild is with one target.
#[derive(ToSchema)]
pub(super) struct Progress {
    /// What is being rebuilt.
    target: String,
    /// Messages read.
    read: u64,
    /// Messages to read; grows while the log does.
    total: u64,
    /// Aggregates or entries written, or found to be right.
    written: u64,
    /// Messages that cannot be taken.
    refused: u64,
    /// Aggregates that wait for their data key.
    waiting: u64,
    /// What is stored under ids that the log does not know. It is left as it is.
    unknown: u64,
    /// Of these, entries of aggregates that the log knows: no restoring of the log brings them back to it.
    gaps: u64,
    /// What is stored at revisions ahead of the log. It is left as it is.
    ahead: u64,
    /// Entries whose content is not the log's. They are left as they are, unless they were ordered to be made as the log has them.
    differing: u64,
    /// Entries that only the store has as they were, because the log was restored from newer states. They stay.
    only_stored: u64,
    /// Entries that were made as the log has them.
    revert: u64,
    /// What is to be said of the log, if it is not whole or not the one that the store was made from.
    of_the_log: Option<String>,
    /// Seconds since the start.
    seconds: f64,
    /// Whether everything is read and written.
    done: bool,
}

/// The state of a service.
#[derive(ToSchema)]
pub(super) struct HealthReport {
    /// UP, DEGRADED, OUT_OF_SERVICE or DOWN.
    status: String,
    /// Every component by name.
    components: BTreeMap<String, ComponentHealth>,
}

/// The state of a component.
#[derive(ToSchema)]
pub(super) struct ComponentHealth {
    /// UP, DEGRADED, OUT_OF_SERVICE or DOWN.
    status: String,
    /// Figures and reasons, if there are any.
    details: Option<BTreeMap<String, Value>>,
}
