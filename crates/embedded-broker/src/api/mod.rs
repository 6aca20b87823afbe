//! What each request does. Handlers know the log and the groups; how messages look on the wire is read and written elsewhere.

mod cluster;
mod committed;
mod configs;
mod fetch;
mod groups;
mod offsets;
mod produce;
mod topics;

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{ApiKey, BrokerId, TopicName},
    protocol::StrBytes,
};
use uuid::Uuid;

use crate::{
    groups::Membership,
    log::{Log, Topic, Topics},
    wire::{Received, WireError},
};

/// The id of the only node.
pub(crate) const NODE: BrokerId = BrokerId(1);
/// Where clients find it.
const HOST: StrBytes = StrBytes::from_static_str("127.0.0.1");
/// Said to who wants a transaction.
const NO_TRANSACTIONS: &str = "this broker has no transactions; an idempotent producer works";
/// No error.
const OK: i16 = 0;

/// What answers requests.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) log: Log,
    pub(crate) groups: Membership,
    /// The port that clients are told.
    pub(crate) port: u16,
}

/// The frame that answers a request, once it is known; `None` when the client wants no answer.
pub(crate) type Answer =
    Pin<Box<dyn Future<Output = Result<Option<Bytes>, WireError>> + Send + 'static>>;

impl Broker {
    /// Takes a request. What it appends to the log is on its way when this returns, so that requests that a client sends one behind the
    /// other share a commit; answers come in the order of requests.
    ///
    /// # Errors
    /// When the request is malformed; then nothing of it was done.
    pub(crate) async fn take(self: &Arc<Self>, received: Received) -> Result<Answer, WireError> {
        macro_rules! handle {
            ($handler:ident) => {{
                let request = received.body()?;
                let broker = Arc::clone(self);
                Box::pin(async move {
                    let answer = broker.$handler(request, &received).await;
                    received.asker().answer(&answer).map(Some)
                })
            }};
        }
        Ok(match received.key {
            ApiKey::Produce => self.produce(received.body()?, received.asker()).await,
            ApiKey::Fetch => handle!(fetch),
            ApiKey::ListOffsets => handle!(list_offsets),
            ApiKey::Metadata => handle!(metadata),
            ApiKey::OffsetCommit => handle!(offset_commit),
            ApiKey::OffsetFetch => handle!(offset_fetch),
            ApiKey::FindCoordinator => handle!(find_coordinator),
            ApiKey::JoinGroup => handle!(join_group),
            ApiKey::Heartbeat => handle!(heartbeat),
            ApiKey::LeaveGroup => handle!(leave_group),
            ApiKey::SyncGroup => handle!(sync_group),
            ApiKey::DescribeGroups => handle!(describe_groups),
            ApiKey::ListGroups => handle!(list_groups),
            ApiKey::CreateTopics => handle!(create_topics),
            ApiKey::DeleteTopics => handle!(delete_topics),
            ApiKey::DeleteRecords => handle!(delete_records),
            ApiKey::InitProducerId => handle!(init_producer_id),
            ApiKey::OffsetForLeaderEpoch => handle!(offset_for_leader_epoch),
            ApiKey::DescribeConfigs => handle!(describe_configs),
            ApiKey::AlterConfigs => handle!(alter_configs),
            ApiKey::IncrementalAlterConfigs => handle!(incremental_alter_configs),
            ApiKey::CreatePartitions => handle!(create_partitions),
            ApiKey::DeleteGroups => handle!(delete_groups),
            ApiKey::DescribeCluster => handle!(describe_cluster),
            // The list of requests that are taken has no others.
            _ => {
                let answer = received.asker().answer(&cluster::api_versions(&received));
                Box::pin(async move { answer.map(Some) })
            }
        })
    }
}

/// A topic by name, or by id in the versions that have ids.
fn topic<'a>(
    topics: &'a Topics,
    name: &TopicName,
    id: &Uuid,
) -> Result<&'a Arc<Topic>, ResponseError> {
    if id.is_nil() {
        topics
            .named(name)
            .ok_or(ResponseError::UnknownTopicOrPartition)
    } else {
        topics.with_id(id).ok_or(ResponseError::UnknownTopicId)
    }
}

/// Refuses what was meant for another time of this partition: it has had one leader since it was made.
fn check_leader_epoch(epoch: i32) -> Result<(), ResponseError> {
    match epoch.cmp(&crate::record_batch::LEADER_EPOCH) {
        std::cmp::Ordering::Greater => Err(ResponseError::UnknownLeaderEpoch),
        // -1 is nothing known.
        _ => Ok(()),
    }
}

fn code(result: Result<(), ResponseError>) -> i16 {
    result.err().map_or(OK, |error| error.code())
}

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A refusal with a sentence for its reader.
type Refusal = (ResponseError, String);

fn refusal(code: ResponseError, reason: impl Into<String>) -> Refusal {
    (code, reason.into())
}

/// The parts of a refusal as responses have them.
fn parts<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (OK, None),
        Err((error, reason)) => (error.code(), Some(text(reason.as_str()))),
    }
}

/// For a change that the log could not keep: it may be able to soon.
fn unavailable() -> Refusal {
    refusal(
        ResponseError::KafkaStorageError,
        "the log cannot be written now; try again",
    )
}

#[cfg(test)]
mod tests;
