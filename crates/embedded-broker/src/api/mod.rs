//! Handles each request. Handlers use the log and the groups. The wire format is handled elsewhere.

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
/// The host that clients connect to.
const HOST: StrBytes = StrBytes::from_static_str("127.0.0.1");
/// The message for a client that requests a transaction.
const NO_TRANSACTIONS: &str = "this broker has no transactions; an idempotent producer works";
/// No error.
const OK: i16 = 0;

/// Handles requests.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) log: Log,
    pub(crate) groups: Membership,
    /// The port that clients are told to use.
    pub(crate) port: u16,
}

/// The response frame, when it is ready; `None` if the client wants no answer.
pub(crate) type Answer =
    Pin<Box<dyn Future<Output = Result<Option<Bytes>, WireError>> + Send + 'static>>;

impl Broker {
    /// Handles a request. When this returns, its writes are already queued for the log, so that consecutive requests of
    /// a client share a commit. Answers are sent in the order of the requests.
    ///
    /// # Errors
    /// If the request is malformed. Then it has no effect.
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
            // The list of supported requests contains no others.
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

/// Refuses a request with another leader epoch. A partition has had one leader since it was created.
fn check_leader_epoch(epoch: i32) -> Result<(), ResponseError> {
    match epoch.cmp(&crate::record_batch::LEADER_EPOCH) {
        std::cmp::Ordering::Greater => Err(ResponseError::UnknownLeaderEpoch),
        // -1 means unknown.
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

/// A refusal with a message.
type Refusal = (ResponseError, String);

fn refusal(code: ResponseError, reason: impl Into<String>) -> Refusal {
    (code, reason.into())
}

/// A refusal as the fields of a response.
fn parts<T>(result: &Result<T, Refusal>) -> (i16, Option<StrBytes>) {
    match result {
        Ok(_) => (OK, None),
        Err((error, reason)) => (error.code(), Some(text(reason.as_str()))),
    }
}

/// The error for a change that the log could not store. A retry may succeed.
fn unavailable() -> Refusal {
    refusal(
        ResponseError::KafkaStorageError,
        "the log cannot be written now; try again",
    )
}

#[cfg(test)]
mod tests;
