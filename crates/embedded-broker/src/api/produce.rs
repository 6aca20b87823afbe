//! `Produce`: batches are validated on arrival, and acknowledged when they are on disk.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ProduceRequest, ProduceResponse,
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

use super::{Answer, Broker, NO_TRANSACTIONS, Refusal, parts, refusal, topic, unavailable};
use crate::{
    log::{Appended, Refused, Topic, answer, now},
    record_batch::{Batch, BatchError},
    wire::Asker,
};

/// About how many bytes a batch costs in the file besides its own.
const PER_BATCH: usize = 256;

/// The state of the batch for one partition of a request.
enum Fate {
    /// Refused before anything was written.
    Refused(Refusal),
    /// Part of the change, with this index.
    InChange(usize),
}

impl Broker {
    pub(super) async fn produce(self: &Arc<Self>, request: ProduceRequest, asker: Asker) -> Answer {
        let topics = self.log.topics();
        let mut batches: Vec<(u32, Batch)> = Vec::new();
        let mut bytes = 0;
        let mut fates = Vec::with_capacity(request.topic_data.len());
        let refused = refuse_all(&request);
        for of_topic in request.topic_data {
            let found = topic(&topics, &of_topic.name, &of_topic.topic_id);
            let mut of_partitions = Vec::with_capacity(of_topic.partition_data.len());
            for of_partition in of_topic.partition_data {
                let checked = match &refused {
                    Some(refusal) => Err(refusal.clone()),
                    None => found
                        .map_err(|code| refusal(code, "there is no such topic"))
                        .and_then(|topic| check(topic, of_partition.index, of_partition.records)),
                };
                let fate = match checked {
                    Ok((number, batch)) => {
                        bytes += batch.len() + PER_BATCH;
                        batches.push((number, batch));
                        Fate::InChange(batches.len() - 1)
                    }
                    Err(refusal) => Fate::Refused(refusal),
                };
                of_partitions.push((of_partition.index, fate));
            }
            fates.push((of_topic.name, of_topic.topic_id, of_partitions));
        }
        let written_at = now();
        let pending = self
            .log
            .submit(bytes, move |changes| {
                batches
                    .iter()
                    .map(|(partition, batch)| changes.append(*partition, batch, written_at))
                    .collect::<Result<Vec<_>, _>>()
            })
            .await;
        let acks = request.acks;
        Box::pin(async move {
            let appended = answer(pending).await;
            if acks == 0 {
                return Ok(None);
            }
            let outcome = |fate: Fate| match (fate, &appended) {
                (Fate::Refused(refusal), _) => Err(refusal),
                (Fate::InChange(_), Err(_)) => Err(unavailable()),
                (Fate::InChange(number), Ok(appended)) => match appended.get(number) {
                    Some(appended) => appended.map_err(of_append),
                    None => Err(unavailable()),
                },
            };
            let responses = fates.into_iter().map(|(name, id, of_partitions)| {
                let partitions = of_partitions
                    .into_iter()
                    .map(|(index, fate)| response(index, &outcome(fate)));
                TopicProduceResponse::default()
                    .with_name(name)
                    .with_topic_id(id)
                    .with_partition_responses(partitions.collect())
            });
            let response = ProduceResponse::default().with_responses(responses.collect());
            asker.answer(&response).map(Some)
        })
    }
}

fn refuse_all(request: &ProduceRequest) -> Option<Refusal> {
    if request.transactional_id.is_some() {
        return Some(refusal(
            ResponseError::TransactionalIdAuthorizationFailed,
            NO_TRANSACTIONS,
        ));
    }
    if !matches!(request.acks, -1..=1) {
        return Some(refusal(
            ResponseError::InvalidRequiredAcks,
            "acks is -1 (all), 1 or 0",
        ));
    }
    None
}

fn check(topic: &Topic, index: i32, records: Option<Bytes>) -> Result<(u32, Batch), Refusal> {
    let partition = topic.partition(index).ok_or_else(|| {
        refusal(
            ResponseError::UnknownTopicOrPartition,
            "the topic has no such partition",
        )
    })?;
    let records = records.unwrap_or_default();
    if records.len() > topic.settings.largest_batch {
        return Err(refusal(
            ResponseError::MessageTooLarge,
            format!(
                "a batch of {} bytes; the topic's max.message.bytes is {}",
                records.len(),
                topic.settings.largest_batch
            ),
        ));
    }
    let batch = Batch::check(records, topic.settings.is_compacted).map_err(of_batch)?;
    Ok((partition.number, batch))
}

fn of_batch(error: BatchError) -> Refusal {
    let code = match error {
        BatchError::Corrupt => ResponseError::CorruptMessage,
        BatchError::OldFormat => ResponseError::UnsupportedForMessageFormat,
        BatchError::Transactional => ResponseError::InvalidTxnState,
        BatchError::Compressed => ResponseError::UnsupportedCompressionType,
        BatchError::NoKey | BatchError::Malformed(_) => ResponseError::InvalidRecord,
    };
    refusal(code, error.to_string())
}

fn of_append(refused: Refused) -> Refusal {
    match refused {
        Refused::NoPartition => refusal(
            ResponseError::UnknownTopicOrPartition,
            "the topic has been deleted",
        ),
        Refused::OutOfOrder => refusal(
            ResponseError::OutOfOrderSequenceNumber,
            "a batch of this producer before this one is missing",
        ),
        Refused::Fenced => refusal(
            ResponseError::InvalidProducerEpoch,
            "a newer instance of this producer has written",
        ),
    }
}

fn response(index: i32, outcome: &Result<Appended, Refusal>) -> PartitionProduceResponse {
    let (error_code, error_message) = parts(outcome);
    let (offset, start) = outcome
        .as_ref()
        .map_or((-1, -1), |appended| (appended.offset, appended.start));
    PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(error_code)
        .with_error_message(error_message)
        .with_base_offset(offset)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(start)
}
