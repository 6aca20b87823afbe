//! How to reach Kafka: brokers, and any property of librdkafka.

use clap::Args;
use rdkafka::ClientConfig;

/// How much every reader reads ahead.
pub(crate) const READ_AHEAD: (&str, &str) = ("queued.max.messages.kbytes", "16384");
/// How soon librdkafka looks whether it may read on after it had read that much. Its own 1,000 ms leave a fast reader idle.
pub(crate) const READ_ON: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// `message.max.bytes` unless somebody sets it.
pub const LARGEST_MESSAGE: usize = 1_000_000;

/// Brokers, librdkafka properties and what topics are made like.
#[derive(Args, Clone, Debug)]
pub struct KafkaSettings {
    /// Kafka brokers, HOST:PORT, separated by commas.
    #[arg(
        long = "kafka-brokers",
        env = "TANDEM_KAFKA_BROKERS",
        value_name = "HOST:PORT,…",
        default_value = "127.0.0.1:9092"
    )]
    pub brokers: String,

    /// Any librdkafka property, as KEY=VALUE; may be given many times (in the environment: one a line).
    #[arg(
        long = "kafka-property",
        env = "TANDEM_KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        value_parser = parse_property
    )]
    pub properties: Vec<(String, String)>,

    /// Partitions of a topic that has to be made.
    #[arg(
        long = "topic-partitions",
        env = "TANDEM_TOPIC_PARTITIONS",
        default_value_t = 6,
        value_parser = clap::value_parser!(i32).range(1..=1000)
    )]
    pub partitions: i32,

    /// Copies of each partition of a topic that has to be made; -1 takes the cluster's default.
    #[arg(
        long = "topic-replication",
        env = "TANDEM_TOPIC_REPLICATION",
        default_value_t = -1,
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-1..=100)
    )]
    pub replication: i32,

    /// Milliseconds for which a topic that has to be made keeps its events; -1 keeps all, which a rebuild needs.
    #[arg(
        long = "topic-retention-ms",
        env = "TANDEM_TOPIC_RETENTION_MS",
        default_value_t = -1,
        allow_negative_numbers = true
    )]
    pub retention_ms: i64,
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE, such as security.protocol=SASL_SSL".to_owned()),
    }
}

impl KafkaSettings {
    /// The configuration that every client starts from: ours first, then the user's properties over it.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tandem")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "20000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config
    }

    /// Most bytes of a message that a producer takes: the property `message.max.bytes`.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.properties
            .iter()
            .rev()
            .find(|(key, _)| key == "message.max.bytes")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(LARGEST_MESSAGE)
    }

    /// The same with the defaults of one kind of client, each unless the user has set that property.
    #[must_use]
    pub fn client_config_with(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = self.client_config();
        for (key, value) in defaults {
            if config.get(key).is_none() {
                config.set(*key, *value);
            }
        }
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_message_is_what_the_property_says_or_librdkafkas_own() {
        let settings = |properties: &[&str]| KafkaSettings {
            brokers: String::new(),
            properties: properties
                .iter()
                .map(|value| ("message.max.bytes".to_owned(), (*value).to_owned()))
                .collect(),
            partitions: 1,
            replication: 1,
            retention_ms: -1,
        };
        assert_eq!(settings(&[]).largest_message(), LARGEST_MESSAGE);
        assert_eq!(settings(&["2000", "3000"]).largest_message(), 3_000);
        // The client says what is wrong with it.
        assert_eq!(settings(&["many"]).largest_message(), LARGEST_MESSAGE);
        let config = settings(&["3000"]).client_config();
        assert_eq!(config.get("message.max.bytes"), Some("3000"));
    }
}
