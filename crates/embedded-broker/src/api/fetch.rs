//! `Fetch` returns batches as they are in the log. A request that finds too little waits, and is answered as soon as
//! there is enough.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::FetchPartition,
        fetch_response::{FetchableTopicResponse, PartitionData},
    },
};
use tokio::{sync::Notify, time::Instant};

use super::{Broker, check_leader_epoch, topic};
use crate::{
    log::{Partition, Topics},
    wire::Received,
};

/// The longest time that a client waits for one answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Most bytes of batches in one answer, unless a single batch is larger.
const LARGEST: usize = 8 * 1024 * 1024;

/// The result of one read of the log.
struct Look {
    responses: Vec<FetchableTopicResponse>,
    /// Bytes of batches that were found.
    found: usize,
    /// Whether a partition could not be read. The client must be told at once.
    has_failed: bool,
    /// The partitions, with the number of bytes that had been written to each.
    seen: Vec<(Arc<Partition>, u64)>,
}

impl Look {
    /// About how many bytes an answer would have now.
    fn available(&self) -> usize {
        let come = |(partition, seen): &(Arc<Partition>, u64)| {
            usize::try_from(partition.ends().written.saturating_sub(*seen)).unwrap_or(usize::MAX)
        };
        self.found + self.seen.iter().map(come).sum::<usize>()
    }
}

fn limit(bytes: i32) -> usize {
    usize::try_from(bytes).unwrap_or(0).min(LARGEST)
}

impl Broker {
    pub(super) async fn fetch(&self, request: FetchRequest, _: &Received) -> FetchResponse {
        // Fetches without a session are always answered. A session (KIP-227) would only save bandwidth, which is no
        // concern here.
        if request.session_id != 0 {
            return FetchResponse::default()
                .with_error_code(ResponseError::FetchSessionIdNotFound.code());
        }
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or_default());
        let deadline = Instant::now() + wait.min(LONGEST_WAIT);
        let wanted = limit(request.min_bytes);
        let arrived = Arc::new(Notify::new());
        loop {
            let topics = self.log.topics();
            // Registers before it reads, so that nothing is missed that arrives in between.
            let _notified: Vec<_> = partitions(&topics, &request)
                .map(|partition| partition.notify(&arrived))
                .collect();
            let look = self.look(&topics, &request).await;
            if look.has_failed || look.found >= wanted {
                return answer(look);
            }
            loop {
                tokio::select! {
                    () = arrived.notified() => {}
                    () = tokio::time::sleep_until(deadline) => return answer(look),
                }
                let same_topics = Arc::ptr_eq(&topics, &self.log.topics());
                if !same_topics || look.available() >= wanted {
                    break;
                }
            }
        }
    }

    async fn look(&self, topics: &Topics, request: &FetchRequest) -> Look {
        let mut look = Look {
            responses: Vec::with_capacity(request.topics.len()),
            found: 0,
            has_failed: false,
            seen: Vec::new(),
        };
        let most = limit(request.max_bytes);
        for of_topic in &request.topics {
            let found = topic(topics, &of_topic.topic, &of_topic.topic_id);
            let mut of_partitions = Vec::with_capacity(of_topic.partitions.len());
            for wanted in &of_topic.partitions {
                let partition = found.and_then(|topic| {
                    let partition = topic.partition(wanted.partition);
                    partition.ok_or(ResponseError::UnknownTopicOrPartition)
                });
                let read = match partition {
                    Ok(partition) => self.one(partition, wanted, most, &mut look).await,
                    Err(error) => Err(error),
                };
                look.has_failed |= read.is_err();
                let response = PartitionData::default().with_partition_index(wanted.partition);
                of_partitions.push(match read {
                    Ok(records) => {
                        let ends = partition.map(|partition| partition.ends());
                        let (start, end) = ends.map_or((-1, -1), |ends| (ends.start, ends.end));
                        response
                            .with_high_watermark(end)
                            .with_last_stable_offset(end)
                            .with_log_start_offset(start)
                            .with_records(Some(records))
                    }
                    Err(error) => response
                        .with_error_code(error.code())
                        .with_high_watermark(-1)
                        .with_records(Some(Bytes::new())),
                });
            }
            look.responses.push(
                FetchableTopicResponse::default()
                    .with_topic(of_topic.topic.clone())
                    .with_topic_id(of_topic.topic_id)
                    .with_partitions(of_partitions),
            );
        }
        look
    }

    /// The batches of one partition that fit into the answer.
    async fn one(
        &self,
        partition: &Arc<Partition>,
        wanted: &FetchPartition,
        most: usize,
        look: &mut Look,
    ) -> Result<Bytes, ResponseError> {
        check_leader_epoch(wanted.current_leader_epoch)?;
        let ends = partition.ends();
        look.seen.push((Arc::clone(partition), ends.written));
        if !(ends.start..=ends.end).contains(&wanted.fetch_offset) {
            return Err(ResponseError::OffsetOutOfRange);
        }
        if wanted.fetch_offset == ends.end {
            return Ok(Bytes::new());
        }
        let room = most
            .saturating_sub(look.found)
            .min(limit(wanted.partition_max_bytes));
        // A batch that exceeds the client's limits is returned nevertheless, so that the client can make progress
        // (KIP-74).
        let records = self
            .log
            .batches(partition, wanted.fetch_offset, room, look.found == 0)
            .await
            .map_err(|_| ResponseError::KafkaStorageError)?;
        look.found += records.len();
        Ok(records)
    }
}

fn partitions<'a>(
    topics: &'a Topics,
    request: &'a FetchRequest,
) -> impl Iterator<Item = &'a Arc<Partition>> {
    request.topics.iter().flat_map(|of_topic| {
        let found = topic(topics, &of_topic.topic, &of_topic.topic_id).ok();
        of_topic
            .partitions
            .iter()
            .filter_map(move |wanted| found?.partition(wanted.partition))
    })
}

fn answer(look: Look) -> FetchResponse {
    FetchResponse::default().with_responses(look.responses)
}
