//! Kafka as the event store: settings, topics, the CloudEvents binding, consumers, the tail for live readers.

use std::time::Duration;

use rdkafka::error::KafkaError;

pub mod cloudevents;
pub mod connection;
pub mod link;
pub mod message;
pub mod settings;
pub mod tail;
pub mod topics;
pub(crate) mod trouble;

/// Longest wait for one answer of a broker to an administrative or metadata request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A client that could not be made: a property that librdkafka does not know or take.
#[derive(Debug, thiserror::Error)]
#[error("Kafka client for {purpose}: {source}")]
pub struct ClientError {
    /// What the client was for.
    pub purpose: &'static str,
    /// What librdkafka said; it names the property.
    #[source]
    pub source: KafkaError,
}
