//! Settings for Kafka: brokers, login, topics, and any property of librdkafka.

mod client_config;
mod properties;

use std::borrow::Cow;

use clap::Args;
use secrecy::SecretString;

pub use client_config::{COMMITTED, LARGEST_MESSAGE};
pub(crate) use client_config::{NOTICE_PARTITIONS, READ_AHEAD, READ_ON, UNCOMMITTED};
pub use properties::{KafkaSettingsError, pairs};

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

    /// Any librdkafka property, as KEY=VALUE; may be given many times (in the environment: one a line). `sasl.jaas.config` is
    /// understood too.
    // Validated later, in `check`: clap would quote a value that it refuses, and this may be a password.
    #[arg(
        long = "kafka-property",
        env = "TANDEM_KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub properties: Vec<String>,

    /// How to log in, where not among the properties.
    #[command(flatten)]
    pub sasl: SaslSettings,

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
        allow_negative_numbers = true,
        value_parser = parse_retention
    )]
    pub retention_ms: i64,

    /// What the names of all topics and consumer groups begin with: for a second system on the same Kafka. Letters, digits, `.`, `_`, `-`.
    #[arg(
        long,
        env = "TANDEM_TOPIC_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        value_parser = parse_prefix
    )]
    pub topic_prefix: String,

    /// A name that this process keeps when it is started again, and that no other has at the same time (`group.instance.id`, KIP-345): after a kill it
    /// reads on at once. Without it the broker waits for its session to time out first, 6 s.
    #[arg(long, env = "TANDEM_KAFKA_INSTANCE", value_name = "NAME")]
    pub kafka_instance: Option<String>,

    /// Claim the topics for this service's store whichever store has claimed them before: when it is the one to go on with.
    #[arg(long, env = "TANDEM_CLAIM_TOPICS")]
    pub claim_topics: bool,
}

/// The values of a topic's `compression.type` with which its records can be read: the algorithms that this build of
/// librdkafka decompresses, and the value that leaves the choice to the producers.
pub const READABLE_COMPRESSION: [&str; 6] =
    ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// The longest prefix. A topic's name may have at most 249 characters.
const LONGEST_PREFIX: usize = 100;

/// Parses how many milliseconds a topic keeps its events.
///
/// # Errors
/// A message that says what would be right.
pub fn parse_retention(text: &str) -> Result<i64, String> {
    match text.trim().parse() {
        Ok(milliseconds @ (-1 | 1..)) => Ok(milliseconds),
        _ => Err("give milliseconds, 1 or more, or -1 for ever".to_owned()),
    }
}

/// Parses the prefix for the names of topics.
///
/// # Errors
/// A message that says what would be right.
pub fn parse_prefix(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if text.len() <= LONGEST_PREFIX && text.bytes().all(fits) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "expected at most {LONGEST_PREFIX} of A-Z a-z 0-9 . _ -, such as staging."
    ))
}

/// A login by SASL, from the environment alone, so that it shows in no process list. Spaces and line ends around a value are
/// not part of it; an empty value is none.
#[derive(Args, Clone, Debug, Default)]
pub struct SaslSettings {
    /// The user, or API key: property `sasl.username`.
    #[arg(
        long = "kafka-sasl-username",
        env = "TANDEM_KAFKA_SASL_USERNAME",
        hide = true,
        hide_env_values = true
    )]
    pub username: Option<SecretString>,

    /// The password, or API secret: property `sasl.password`.
    #[arg(
        long = "kafka-sasl-password",
        env = "TANDEM_KAFKA_SASL_PASSWORD",
        hide = true,
        hide_env_values = true
    )]
    pub password: Option<SecretString>,

    /// The login of a Java client: property `sasl.jaas.config`.
    #[arg(
        long = "kafka-sasl-jaas-config",
        env = "TANDEM_KAFKA_SASL_JAAS_CONFIG",
        hide = true,
        hide_env_values = true
    )]
    pub jaas_config: Option<SecretString>,
}

impl Default for KafkaSettings {
    /// The same as without flags: a broker on this machine.
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            properties: Vec::new(),
            sasl: SaslSettings::default(),
            partitions: 6,
            replication: -1,
            retention_ms: -1,
            topic_prefix: String::new(),
            kafka_instance: None,
            claim_topics: false,
        }
    }
}

impl KafkaSettings {
    /// Settings with these brokers, without a login, and with the defaults for everything else.
    #[must_use]
    pub fn of(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            ..Self::default()
        }
    }

    /// The name that this process keeps over restarts, if there is one. An empty name counts as none.
    pub(crate) fn instance(&self) -> Option<&str> {
        self.kafka_instance
            .as_deref()
            .map(str::trim)
            .filter(|name| !name.is_empty())
    }

    /// The name in Kafka for one of our topics or consumer groups.
    #[must_use]
    pub fn physical<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.topic_prefix.is_empty() {
            return Cow::Borrowed(name);
        }
        Cow::Owned(format!("{}{name}", self.topic_prefix))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(super) fn with_properties<T: AsRef<str>>(properties: &[T]) -> KafkaSettings {
        KafkaSettings {
            properties: properties
                .iter()
                .map(|property| property.as_ref().to_owned())
                .collect(),
            ..KafkaSettings::of("a:9092")
        }
    }

    #[test]
    fn a_prefix_is_part_of_every_name_in_kafka() {
        let settings = KafkaSettings {
            topic_prefix: parse_prefix("staging.").unwrap(),
            ..KafkaSettings::default()
        };
        assert_eq!(settings.physical("orders"), "staging.orders");
        assert_eq!(KafkaSettings::default().physical("orders"), "orders");
        for wrong in ["a b", "a/b", &"a".repeat(LONGEST_PREFIX + 1)] {
            assert!(parse_prefix(wrong).unwrap_err().contains("staging."));
        }
    }
}
