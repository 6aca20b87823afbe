//! `ListOffsets` and `OffsetForLeaderEpoch`: the first and last offset of a partition, and offsets by time.

use std::sync::Arc;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{Broker, check_leader_epoch};
use crate::{
    log::{Found, Partition, When},
    record_batch::LEADER_EPOCH,
    wire::Received,
};

/// Special values of the timestamp (`ListOffsetsRequest` of Apache Kafka).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const NEWEST_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The first version of `ListOffsets` with leader epochs.
const HAS_EPOCHS: i16 = 4;
/// No offset and no timestamp.
const NONE: Found = Found {
    offset: -1,
    timestamp: -1,
};

impl Broker {
    pub(super) async fn list_offsets(
        &self,
        request: ListOffsetsRequest,
        received: &Received,
    ) -> ListOffsetsResponse {
        let has_epochs = received.version >= HAS_EPOCHS;
        let topics = self.log.topics();
        let mut of_topics = Vec::with_capacity(request.topics.len());
        for wanted in request.topics {
            let topic = topics.named(&wanted.name);
            let mut of_partitions = Vec::with_capacity(wanted.partitions.len());
            for one in wanted.partitions {
                let partition = topic.and_then(|topic| topic.partition(one.partition_index));
                let found = match partition {
                    Some(partition) => {
                        self.offset_at(partition, one.timestamp, one.current_leader_epoch)
                            .await
                    }
                    None => Err(ResponseError::UnknownTopicOrPartition),
                };
                let response = ListOffsetsPartitionResponse::default()
                    .with_partition_index(one.partition_index);
                of_partitions.push(match found {
                    Ok(found) => response
                        .with_offset(found.offset)
                        .with_timestamp(found.timestamp)
                        .with_leader_epoch(match found {
                            NONE => -1,
                            _ if !has_epochs => -1,
                            _ => LEADER_EPOCH,
                        }),
                    Err(error) => response.with_error_code(error.code()),
                });
            }
            of_topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(wanted.name)
                    .with_partitions(of_partitions),
            );
        }
        ListOffsetsResponse::default().with_topics(of_topics)
    }

    async fn offset_at(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
        epoch: i32,
    ) -> Result<Found, ResponseError> {
        check_leader_epoch(epoch)?;
        let ends = partition.ends();
        let at = |offset| Found { offset, ..NONE };
        let when = match timestamp {
            LATEST => return Ok(at(ends.end)),
            EARLIEST | EARLIEST_LOCAL => return Ok(at(ends.start)),
            LATEST_TIERED => return Ok(NONE),
            NEWEST_TIMESTAMP => When::Newest,
            0.. => When::From(timestamp),
            _ => return Err(ResponseError::UnsupportedVersion),
        };
        let found = self.log.find(partition, when).await;
        match found {
            Ok(found) => Ok(found.unwrap_or(NONE)),
            Err(_) => Err(ResponseError::KafkaStorageError),
        }
    }

    pub(super) async fn offset_for_leader_epoch(
        &self,
        request: OffsetForLeaderEpochRequest,
        _: &Received,
    ) -> OffsetForLeaderEpochResponse {
        let topics = self.log.topics();
        let of_topics = request.topics.into_iter().map(|wanted| {
            let topic = topics.named(&wanted.topic);
            let of_partitions = wanted.partitions.into_iter().map(|one| {
                let response = EpochEndOffset::default().with_partition(one.partition);
                let partition = topic
                    .and_then(|topic| topic.partition(one.partition))
                    .ok_or(ResponseError::UnknownTopicOrPartition);
                let checked = check_leader_epoch(one.current_leader_epoch).and(partition);
                match checked {
                    Err(error) => response.with_error_code(error.code()),
                    Ok(partition) if one.leader_epoch == LEADER_EPOCH => response
                        .with_leader_epoch(LEADER_EPOCH)
                        .with_end_offset(partition.ends().end),
                    // There has been no such epoch.
                    Ok(_) => response.with_leader_epoch(-1).with_end_offset(-1),
                }
            });
            OffsetForLeaderTopicResult::default()
                .with_topic(wanted.topic.clone())
                .with_partitions(of_partitions.collect())
        });
        OffsetForLeaderEpochResponse::default().with_topics(of_topics.collect())
    }
}
