//! How to reach Kafka: brokers, the login, and any property of librdkafka.

use std::{borrow::Cow, ffi::OsString, time::Duration};

use clap::Args;
use rdkafka::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tandem_event_path::log::LogError;

use super::jaas::{JaasError, Login};

/// How much every reader reads ahead.
pub(crate) const READ_AHEAD: (&str, &str) = ("queued.max.messages.kbytes", "16384");
/// How soon librdkafka looks whether it may read on after it had read that much. Its own 1,000 ms leave a fast reader idle.
pub(crate) const READ_ON: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// Readers see what was committed and nothing that was aborted, if somebody writes in transactions; this service does not.
pub const COMMITTED: (&str, &str) = ("isolation.level", "read_committed");
/// Where the log ends whatever transactions are open.
pub(crate) const UNCOMMITTED: (&str, &str) = ("isolation.level", "read_uncommitted");
/// How soon every reader and the relay look for partitions that were added to a topic.
pub(crate) const NOTICE_PARTITIONS: Duration = Duration::from_secs(5);
/// The same as librdkafka wants it. Its own 300,000 ms leave new partitions unread for minutes.
const NOTICE_PARTITIONS_MS: &str = "5000";

/// Where the system keeps the certificates of authorities is looked up. An OpenSSL that was compiled into the program looks in a folder of its
/// own, which no system has, and librdkafka knows of that only where its `configure` found the library by itself.
const AUTHORITIES: (&str, &str) = ("ssl.ca.location", "probe");
/// By these somebody tells OpenSSL where to look; what is looked up would win.
const AUTHORITIES_OF_OPENSSL: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

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

    /// Any librdkafka property, as KEY=VALUE; may be given many times (in the environment: one a line). `sasl.jaas.config` is
    /// understood too.
    // Looked at later, in `check`: what clap refuses it quotes, and this may be a password.
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
        allow_negative_numbers = true
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

    /// Claim the topics for this service's store whichever store has claimed them before: when it is the one to go on with.
    #[arg(long, env = "TANDEM_CLAIM_TOPICS")]
    pub claim_topics: bool,
}

/// Longest prefix: a topic's name has at most 249 characters.
const LONGEST_PREFIX: usize = 100;

/// Reads what the names of topics are to begin with.
///
/// # Errors
/// Says what would be right.
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

/// Which setting of Kafka does not fit. It never quotes a value: that may be a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaSettingsError {
    /// A property is not `KEY=VALUE`.
    #[error(
        "--kafka-property (TANDEM_KAFKA_PROPERTIES): number {0} is no KEY=VALUE; write for example security.protocol=SASL_SSL, in the environment one a line"
    )]
    NoPair(usize),
    /// The login of a Java client cannot be read.
    #[error(transparent)]
    Jaas(#[from] JaasError),
    /// A login is asked for and there is none.
    #[error(
        "security.protocol is {protocol}, and there is no {missing}: set the properties sasl.username and sasl.password, or TANDEM_KAFKA_SASL_USERNAME and TANDEM_KAFKA_SASL_PASSWORD, or TANDEM_KAFKA_SASL_JAAS_CONFIG"
    )]
    NoLogin {
        /// The protocol, which wants a login.
        protocol: String,
        /// `user` or `password`.
        missing: &'static str,
    },
}

const USERNAME: &str = "sasl.username";
const PASSWORD: &str = "sasl.password";
const JAAS_CONFIG: &str = "sasl.jaas.config";
const MECHANISM: &str = "sasl.mechanism";

/// The value without what surrounds it; `None` when nothing is left.
fn given(secret: Option<&SecretString>) -> Option<String> {
    let value = secret?.expose_secret().trim();
    (!value.is_empty()).then(|| value.to_owned())
}

impl Default for KafkaSettings {
    /// As without flags: a broker on this machine.
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            properties: Vec::new(),
            sasl: SaslSettings::default(),
            partitions: 6,
            replication: -1,
            retention_ms: -1,
            topic_prefix: String::new(),
            claim_topics: false,
        }
    }
}

impl From<KafkaSettingsError> for LogError {
    fn from(error: KafkaSettingsError) -> Self {
        Self::Settings(error.to_string())
    }
}

impl KafkaSettings {
    /// Settings for these brokers, without a login, and with our own defaults for the rest.
    #[must_use]
    pub fn of(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            ..Self::default()
        }
    }

    /// Whether everything that can be told without Kafka fits. To be called before the first client is made, which would leave out
    /// what does not.
    ///
    /// # Errors
    /// Says which setting does not fit, and what would be right.
    pub fn check(&self) -> Result<(), KafkaSettingsError> {
        let properties = self.resolve()?;
        let value = |key: &str| {
            let found = properties.iter().rev().find(|(name, _)| name == key);
            found
                .map(|(_, value)| value.as_str())
                .filter(|value| !value.is_empty())
        };
        let protocol = value("security.protocol").unwrap_or_default();
        // Other mechanisms log in by other means.
        let by_password = value(MECHANISM)
            .or(value("sasl.mechanisms"))
            .is_some_and(|mechanism| mechanism == "PLAIN" || mechanism.starts_with("SCRAM-"));
        if protocol.to_ascii_uppercase().starts_with("SASL") && by_password {
            for (key, missing) in [(USERNAME, "user"), (PASSWORD, "password")] {
                if value(key).is_none() {
                    return Err(KafkaSettingsError::NoLogin {
                        protocol: protocol.to_owned(),
                        missing,
                    });
                }
            }
        }
        Ok(())
    }

    /// The user's properties with the login among them, in the order in which they count: later ones win.
    fn resolve(&self) -> Result<Vec<(String, String)>, KafkaSettingsError> {
        let mut pairs = Vec::new();
        for (number, text) in (1..).zip(&self.properties) {
            // A value that comes from a file often ends with a line end.
            if text.trim().is_empty() {
                continue;
            }
            match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => {
                    pairs.push((key.trim().to_owned(), value.trim().to_owned()));
                }
                _ => return Err(KafkaSettingsError::NoPair(number)),
            }
        }
        let jaas = pairs
            .iter()
            .rev()
            .find(|(key, _)| key == JAAS_CONFIG)
            .map(|(_, value)| value.clone())
            .filter(|value| !value.is_empty())
            .or_else(|| given(self.sasl.jaas_config.as_ref()));
        pairs.retain(|(key, _)| key != JAAS_CONFIG);
        let mut properties = Vec::new();
        if let Some(jaas) = jaas {
            let login = Login::read(&jaas)?;
            let set = pairs
                .iter()
                .rev()
                .find(|(key, _)| key == MECHANISM || key == "sasl.mechanisms");
            let mechanism = login.mechanism(set.map(|(_, value)| value.as_str()))?;
            if set.is_none() {
                properties.push((MECHANISM.to_owned(), mechanism));
            }
            properties.push((USERNAME.to_owned(), login.username));
            properties.push((PASSWORD.to_owned(), login.password));
        }
        let separate = [
            (USERNAME, &self.sasl.username),
            (PASSWORD, &self.sasl.password),
        ];
        for (key, secret) in separate {
            if let Some(value) = given(secret.as_ref()) {
                properties.push((key.to_owned(), value));
            }
        }
        properties.extend(pairs);
        Ok(properties)
    }

    /// The properties that count; none where [`Self::check`] fails.
    pub(super) fn effective_properties(&self) -> Vec<(String, String)> {
        self.resolve().unwrap_or_default()
    }

    /// Has the system's authorities be found, unless OpenSSL is told where to look; what the user's properties name comes behind, and wins.
    pub(super) fn find_authorities(config: &mut ClientConfig) {
        if let Some((key, value)) = Self::authorities(|name| std::env::var_os(name)) {
            config.set(key, value);
        }
    }

    fn authorities(
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Option<(&'static str, &'static str)> {
        let told = AUTHORITIES_OF_OPENSSL
            .iter()
            .any(|name| variable(name).is_some_and(|value| !value.is_empty()));
        (!told).then_some(AUTHORITIES)
    }

    /// The brokers, without what surrounds them.
    pub(super) fn bootstrap_servers(&self) -> String {
        let brokers: Vec<&str> = self.brokers.split(',').map(str::trim).collect();
        brokers.join(",")
    }

    /// The configuration that every client starts from: ours first, then the user's properties over it.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("client.id", "tandem")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "20000")
            // Where packets vanish, the reason is to be known before a request's own time is up.
            .set("socket.connection.setup.timeout.ms", "8000")
            .set("reconnect.backoff.ms", "100")
            .set("reconnect.backoff.max.ms", "2000")
            .set("topic.metadata.refresh.interval.ms", NOTICE_PARTITIONS_MS);
        Self::find_authorities(&mut config);
        for (key, value) in self.effective_properties() {
            config.set(key, value);
        }
        config
    }

    /// The name in Kafka of one of our topics or consumer groups.
    #[must_use]
    pub fn physical<'a>(&self, name: &'a str) -> Cow<'a, str> {
        if self.topic_prefix.is_empty() {
            return Cow::Borrowed(name);
        }
        Cow::Owned(format!("{}{name}", self.topic_prefix))
    }

    /// Most bytes of a message that a producer takes: the property `message.max.bytes`.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.effective_properties()
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
    #![allow(clippy::unwrap_used)]
    use super::*;

    const JAAS: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required username=\"KEY\" password=\"S3CRET\";\n";

    fn with_properties<T: AsRef<str>>(properties: &[T]) -> KafkaSettings {
        KafkaSettings {
            properties: properties
                .iter()
                .map(|property| property.as_ref().to_owned())
                .collect(),
            ..KafkaSettings::of("a:9092")
        }
    }

    fn login(settings: &KafkaSettings) -> [Option<String>; 3] {
        assert_eq!(settings.check(), Ok(()));
        let config = settings.client_config();
        [MECHANISM, USERNAME, PASSWORD].map(|key| config.get(key).map(str::to_owned))
    }

    #[test]
    fn a_secret_of_a_java_client_logs_in() {
        let wanted = ["PLAIN", "KEY", "S3CRET"].map(|value| Some(value.to_owned()));
        let by_property = with_properties(&[
            "security.protocol=SASL_SSL".to_owned(),
            format!("sasl.jaas.config={JAAS}"),
        ]);
        assert_eq!(login(&by_property), wanted);
        assert_eq!(by_property.client_config().get(JAAS_CONFIG), None);
        let mut by_environment = with_properties(&["sasl.mechanism=PLAIN"]);
        by_environment.sasl.jaas_config = Some(JAAS.into());
        assert_eq!(login(&by_environment), wanted);
    }

    #[test]
    fn line_ends_around_a_value_are_no_part_of_it() {
        let mut settings = with_properties(&[
            "security.protocol=SASL_SSL",
            "",
            "sasl.mechanism=SCRAM-SHA-512 ",
            " ",
        ]);
        settings.brokers = " a:9092, b:9092\n".to_owned();
        settings.sasl.username = Some("KEY\n".into());
        settings.sasl.password = Some("S3CRET\r\n".into());
        settings.sasl.jaas_config = Some("\n".into());
        let wanted = ["SCRAM-SHA-512", "KEY", "S3CRET"].map(|value| Some(value.to_owned()));
        assert_eq!(login(&settings), wanted);
        let config = settings.client_config();
        assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:9092"));
    }

    #[test]
    fn what_does_not_fit_is_said_without_the_value() {
        let told = |properties: &[&str]| {
            let error = with_properties(properties).check().unwrap_err().to_string();
            assert!(!error.contains("S3CRET"), "{error}");
            error
        };
        assert!(told(&["acks=all", "S3CRET"]).contains("number 2 is no KEY=VALUE"));
        let sasl = ["security.protocol=SASL_SSL", "sasl.mechanism=PLAIN"];
        assert!(told(&sasl).contains("there is no user"));
        assert!(
            told(&[sasl[0], sasl[1], "sasl.username=KEY"]).contains("there is no password: set")
        );
        let jaas = "sasl.jaas.config=ScramLoginModule required username=KEY password=S3CRET;";
        assert!(told(&[sasl[1], jaas]).contains("SCRAM-SHA-256 or SCRAM-SHA-512"));
    }

    #[test]
    fn a_property_wins_over_the_login_beside_it() {
        let mut settings = with_properties(&["sasl.username=explicit"]);
        settings.sasl.jaas_config = Some(JAAS.into());
        assert_eq!(login(&settings)[1].as_deref(), Some("explicit"));
    }

    #[test]
    fn authorities_are_the_systems_unless_somebody_says_where_they_are() {
        let of = |set: Option<(&'static str, &'static str)>| {
            KafkaSettings::authorities(move |name| {
                set.filter(|(key, _)| *key == name)
                    .map(|(_, value)| value.into())
            })
        };
        assert_eq!(of(None), Some(("ssl.ca.location", "probe")));
        assert_eq!(of(Some(("SSL_CERT_FILE", ""))), of(None));
        assert_eq!(of(Some(("SSL_CERT_FILE", "/own.pem"))), None);
        assert_eq!(of(Some(("SSL_CERT_DIR", "/own"))), None);
        let named = with_properties(&["ssl.ca.location=/own.pem"]).client_config();
        assert_eq!(named.get("ssl.ca.location"), Some("/own.pem"));
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

    #[test]
    fn the_largest_message_is_what_the_property_says_or_librdkafkas_own() {
        let settings = |sizes: &[&str]| {
            let set = |size: &&str| format!("message.max.bytes={size}");
            with_properties(&sizes.iter().map(set).collect::<Vec<_>>())
        };
        assert_eq!(settings(&[]).largest_message(), LARGEST_MESSAGE);
        assert_eq!(settings(&["2000", "3000"]).largest_message(), 3_000);
        // The client says what is wrong with it.
        assert_eq!(settings(&["many"]).largest_message(), LARGEST_MESSAGE);
        let config = settings(&["3000"]).client_config();
        assert_eq!(config.get("message.max.bytes"), Some("3000"));
    }
}
