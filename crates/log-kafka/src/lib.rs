//! The Kafka adapter of the log port (`tandem_event_path::log`), on librdkafka. It is the only crate that needs
//! rdkafka.
//!
//! * [`connection`]: a service's connection; creates missing topics ([`topics`]) in the background.
//! * `publisher`: an idempotent producer with `acks=all`; `producer`: its client, and the thread of its reports.
//! * `member`: a member of a consumer group, for projections.
//! * `tail`: reads a whole topic by assignment, outside any group, for live readers, rebuilds and audits.
//! * [`settings`]: brokers, login, and any librdkafka property.
//! * [`reason`], [`link`], `certificate`: why Kafka is unreachable, as one sentence.
//! * `unreadable`: what cannot be read although Kafka answers.

use std::time::Duration;

use rdkafka::error::KafkaError;
use tandem_event_path::log::LogError;

mod certificate;
pub mod connection;
pub mod inspect;
mod jaas;
pub mod link;
mod member;
mod producer;
mod publisher;
pub mod reason;
mod record;
pub mod settings;
mod tail;
pub mod topics;
mod unreadable;

/// The time limit for a broker's answer to an administrative or metadata request.
pub const REQUEST_LIMIT: Duration = Duration::from_secs(10);

/// The error for a client that could not be created, because librdkafka does not know a property or refuses its value.
/// Its text names the property.
fn no_client(purpose: &'static str) -> impl FnOnce(KafkaError) -> LogError {
    move |error| LogError::Settings(format!("Kafka client for {purpose}: {error}"))
}

/// Converts an error of librdkafka to "unavailable".
fn away(error: KafkaError) -> LogError {
    LogError::Unavailable(error.to_string())
}
