//! The adapter of the log port (`tandem_event_path::log`) to Kafka, on librdkafka: the only crate that needs rdkafka.
//!
//! * [`connection`]: a service's connection; creates missing topics ([`topics`]) in the background.
//! * `publisher`: an idempotent producer with `acks=all`.
//! * `member`: a member of a consumer group, for projections.
//! * `tail`: reads a whole topic by assignment, outside any group, for live readers, rebuilds and audits.
//! * [`settings`]: brokers, login, and any librdkafka property.
//! * [`reason`], [`link`], `certificate`: why Kafka cannot be reached, as one sentence.
//! * `unreadable`: what cannot be read though it can be reached.

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
mod unreadable;

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
