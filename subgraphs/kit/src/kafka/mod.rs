//! Kafka as the event store: settings, topics, the CloudEvents binding, consumers.

pub mod settings;
