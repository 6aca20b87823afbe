//! The log on Kafka: settings, topics, publishers, groups, tails.

use std::time::Duration;

use rdkafka::error::KafkaError;
use tandem_event_path::log::LogError;

mod certificate;
pub mod connection;
pub mod inspect;
mod jaas;
pub mod link;
mod member;
mod publisher;
pub mod reason;
mod record;
pub mod settings;
mod tail;
pub mod topics;

/// Longest wait for one answer of a broker to an administrative or metadata request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// A client that could not be made, for a property that librdkafka does not know or take; what librdkafka said names it.
fn no_client(purpose: &'static str) -> impl FnOnce(KafkaError) -> LogError {
    move |error| LogError::Settings(format!("Kafka client for {purpose}: {error}"))
}

/// What librdkafka says while it cannot do as asked.
fn away(error: KafkaError) -> LogError {
    LogError::Away(error.to_string())
}
