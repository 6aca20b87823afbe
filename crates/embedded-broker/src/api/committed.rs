//! `OffsetCommit` and `OffsetFetch`: the committed offsets of groups.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::collections::HashMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
        TopicName,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use tokio::time::Instant;

use super::{Broker, OK, code, text, topic_name};
use crate::{
    log::{CommittedOffset, now},
    wire::Received,
};

/// Longest metadata of an offset, in bytes, as in Kafka (`offset.metadata.max.bytes`).
const LONGEST_METADATA: usize = 4096;
/// The first version in which a request can name several groups.
const SEVERAL_GROUPS: i16 = 8;

/// Topics with partitions; `None` requests all that have a committed offset.
type Asked = Option<Vec<(TopicName, Vec<i32>)>>;

impl Broker {
    pub(super) async fn offset_commit(
        &self,
        request: OffsetCommitRequest,
        _: &Received,
    ) -> OffsetCommitResponse {
        let allowed = match request.group_id.is_empty() {
            true => Err(ResponseError::InvalidGroupId),
            false => self.groups.may_commit(
                &request.group_id,
                &request.member_id,
                request.generation_id_or_member_epoch,
                Instant::now(),
            ),
        };
        let topics = self.log.topics();
        let mut offsets = Vec::new();
        let mut outcomes = Vec::with_capacity(request.topics.len());
        for of_topic in request.topics {
            let topic = topics.named(&of_topic.name);
            let mut of_partitions = Vec::with_capacity(of_topic.partitions.len());
            for one in of_topic.partitions {
                let metadata = one.committed_metadata.unwrap_or_default();
                let is_known = topic
                    .and_then(|topic| topic.partition(one.partition_index))
                    .is_some();
                let outcome = match allowed {
                    Err(error) => Err(error),
                    Ok(()) if !is_known => Err(ResponseError::UnknownTopicOrPartition),
                    Ok(()) if metadata.len() > LONGEST_METADATA => {
                        Err(ResponseError::OffsetMetadataTooLarge)
                    }
                    Ok(()) => Ok(()),
                };
                if outcome.is_ok() {
                    offsets.push(CommittedOffset {
                        topic: of_topic.name.to_string(),
                        partition: one.partition_index,
                        offset: one.committed_offset,
                        leader_epoch: one.committed_leader_epoch,
                        metadata: metadata.to_string(),
                    });
                }
                of_partitions.push((one.partition_index, outcome));
            }
            outcomes.push((of_topic.name, of_partitions));
        }
        let kept = match offsets.is_empty() {
            true => Ok(()),
            false => {
                let (group, at) = (request.group_id.to_string(), now());
                self.log
                    .change(move |changes| changes.commit_offsets(&group, &offsets, at))
                    .await
            }
        };
        // The client looks for the coordinator and commits again.
        let kept = kept.map_err(|_| ResponseError::CoordinatorNotAvailable);
        let responses = outcomes.into_iter().map(|(name, of_partitions)| {
            let partitions = of_partitions.into_iter().map(|(index, outcome)| {
                OffsetCommitResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(code(outcome.and(kept)))
            });
            OffsetCommitResponseTopic::default()
                .with_name(name)
                .with_partitions(partitions.collect())
        });
        OffsetCommitResponse::default().with_topics(responses.collect())
    }

    pub(super) async fn offset_fetch(
        &self,
        request: OffsetFetchRequest,
        received: &Received,
    ) -> OffsetFetchResponse {
        if received.version < SEVERAL_GROUPS {
            let asked = request.topics.map(|topics| {
                let topics = topics.into_iter();
                topics
                    .map(|one| (one.name, one.partition_indexes))
                    .collect()
            });
            let (error, found) = self.committed(&request.group_id, asked).await;
            let topics = found.into_iter().map(|(name, offsets)| {
                let partitions = offsets.into_iter().map(|one| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(one.partition)
                        .with_committed_offset(one.offset)
                        .with_committed_leader_epoch(one.leader_epoch)
                        .with_metadata(Some(text(one.metadata)))
                        // In the oldest version, this is the only field for an error.
                        .with_error_code(error)
                });
                OffsetFetchResponseTopic::default()
                    .with_name(name)
                    .with_partitions(partitions.collect())
            });
            return OffsetFetchResponse::default()
                .with_error_code(error)
                .with_topics(topics.collect());
        }
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let asked = group.topics.map(|topics| {
                let topics = topics.into_iter();
                topics
                    .map(|one| (one.name, one.partition_indexes))
                    .collect()
            });
            let (error, found) = self.committed(&group.group_id, asked).await;
            let topics = found.into_iter().map(|(name, offsets)| {
                let partitions = offsets.into_iter().map(|one| {
                    OffsetFetchResponsePartitions::default()
                        .with_partition_index(one.partition)
                        .with_committed_offset(one.offset)
                        .with_committed_leader_epoch(one.leader_epoch)
                        .with_metadata(Some(text(one.metadata)))
                });
                OffsetFetchResponseTopics::default()
                    .with_name(name)
                    .with_partitions(partitions.collect())
            });
            groups.push(
                OffsetFetchResponseGroup::default()
                    .with_group_id(group.group_id)
                    .with_error_code(error)
                    .with_topics(topics.collect()),
            );
        }
        OffsetFetchResponse::default().with_groups(groups)
    }

    /// An error code, and for each topic the committed offsets of a group; -1 for partitions without one.
    async fn committed(
        &self,
        group: &str,
        asked: Asked,
    ) -> (i16, Vec<(TopicName, Vec<CommittedOffset>)>) {
        let Ok(offsets) = self.log.committed(group).await else {
            return (ResponseError::CoordinatorNotAvailable.code(), Vec::new());
        };
        let Some(asked) = asked else {
            let mut all: Vec<(TopicName, Vec<CommittedOffset>)> = Vec::new();
            for one in offsets {
                match all
                    .last_mut()
                    .filter(|(name, _)| name.as_str() == one.topic)
                {
                    Some((_, of_topic)) => of_topic.push(one),
                    None => all.push((topic_name(&one.topic), vec![one])),
                }
            }
            return (OK, all);
        };
        let known: HashMap<(&str, i32), &CommittedOffset> = offsets
            .iter()
            .map(|one| ((one.topic.as_str(), one.partition), one))
            .collect();
        let found = asked.into_iter().map(|(name, partitions)| {
            let of_topic = partitions.into_iter().map(|partition| {
                let found = known.get(&(name.as_str(), partition)).copied().cloned();
                found.unwrap_or_else(|| CommittedOffset {
                    topic: name.to_string(),
                    partition,
                    offset: -1,
                    leader_epoch: -1,
                    metadata: String::new(),
                })
            });
            let of_topic = of_topic.collect();
            (name, of_topic)
        });
        (OK, found.collect())
    }
}
