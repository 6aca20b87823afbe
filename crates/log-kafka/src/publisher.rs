//! An idempotent producer with many records in flight.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{FutureExt, future::BoxFuture};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tandem_event_path::log::{LogError, PublishError, Publisher, Record};
use tandem_model::message::Position;

use crate::{link::Link, no_client, producer::Producer, settings::KafkaSettings};

/// Publishes with one producer, and replaces it after a fatal error.
pub(crate) struct KafkaPublisher {
    settings: Arc<KafkaSettings>,
    link: Link,
    producer: Mutex<Producer>,
    /// Whether something failed since the producer was checked.
    suspect: Arc<AtomicBool>,
}

impl fmt::Debug for KafkaPublisher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KafkaPublisher")
    }
}

fn producer(settings: &KafkaSettings, link: Link) -> Result<Producer, LogError> {
    let config = settings.client_config_with(&[
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "30000"),
    ]);
    Producer::new(&config, link).map_err(no_client("a relay's producer"))
}

impl KafkaPublisher {
    pub(crate) fn new(settings: Arc<KafkaSettings>, link: Link) -> Result<Self, LogError> {
        Ok(Self {
            producer: Mutex::new(producer(&settings, link.clone())?),
            settings,
            link,
            suspect: Arc::default(),
        })
    }

    /// The producer, or a new one after a fatal error (KIP-360), because the old one then accepts no more records.
    fn producer(&self) -> Producer {
        let mut held = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.suspect.swap(false, Ordering::AcqRel)
            && let Some((code, reason)) = held.fatal_error()
        {
            tracing::warn!(%code, reason, "the producer cannot go on; making a new one");
            match producer(&self.settings, self.link.clone()) {
                Ok(fresh) => *held = fresh,
                Err(error) => tracing::error!(%error, "no new producer"),
            }
        }
        held.clone()
    }
}

impl Publisher for KafkaPublisher {
    fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<BoxFuture<'static, Result<Position, PublishError>>, PublishError> {
        let producer = self.producer();
        let topic = self.settings.physical(record.topic);
        let delivery = producer.send(&topic, record).map_err(|error| {
            self.suspect.store(true, Ordering::Release);
            publish_error(&error)
        })?;
        let suspect = Arc::clone(&self.suspect);
        let outcome = async move {
            let error = match delivery.await {
                Ok(Ok(position)) => return Ok(position),
                Ok(Err(error)) => error,
                Err(_) => KafkaError::Canceled,
            };
            suspect.store(true, Ordering::Release);
            Err(publish_error(&error))
        };
        Ok(outcome.boxed())
    }
}

/// Converts an error of librdkafka for a record to the port's error.
pub(crate) fn publish_error(error: &KafkaError) -> PublishError {
    let said = error.to_string();
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::MessageBatchTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidRecord,
        ) => PublishError::Refused(said),
        Some(RDKafkaErrorCode::InvalidDifferentRecord) => PublishError::Neighbour(said),
        Some(RDKafkaErrorCode::QueueFull) => PublishError::Full(said),
        _ => PublishError::Unavailable(said),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_is_never_taken_is_told_from_a_kafka_that_is_away() {
        let of = |code| publish_error(&KafkaError::MessageProduction(code));
        for code in [
            RDKafkaErrorCode::MessageSizeTooLarge,
            RDKafkaErrorCode::InvalidRecord,
            RDKafkaErrorCode::PolicyViolation,
        ] {
            assert!(matches!(of(code), PublishError::Refused(_)), "{code}");
        }
        for code in [
            RDKafkaErrorCode::MessageTimedOut,
            RDKafkaErrorCode::NotEnoughReplicas,
            RDKafkaErrorCode::TopicAuthorizationFailed,
            RDKafkaErrorCode::UnknownTopicOrPartition,
        ] {
            assert!(matches!(of(code), PublishError::Unavailable(_)), "{code}");
        }
        let full = of(RDKafkaErrorCode::QueueFull);
        assert!(matches!(full, PublishError::Full(_)));
        let canceled = publish_error(&KafkaError::Canceled);
        assert!(matches!(canceled, PublishError::Unavailable(_)));
    }
}
