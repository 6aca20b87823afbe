//! The base configuration of every librdkafka client: our defaults, overridden by the user's properties.

use std::{ffi::OsString, time::Duration};

use rdkafka::ClientConfig;

use super::KafkaSettings;

/// How much every reader prefetches.
pub(crate) const READ_AHEAD: (&str, &str) = ("queued.max.messages.kbytes", "16384");
/// After how long librdkafka continues a fetch that stopped at that limit. Its default of 1,000 ms leaves a fast reader
/// idle.
pub(crate) const READ_ON: (&str, &str) = ("fetch.queue.backoff.ms", "10");

/// Readers see only committed records if somebody writes in transactions. This service does not use transactions.
pub const COMMITTED: (&str, &str) = ("isolation.level", "read_committed");
/// Shows the end of the log, including open transactions.
pub(crate) const UNCOMMITTED: (&str, &str) = ("isolation.level", "read_uncommitted");
/// How soon every reader, and the relay, notices partitions that were added to a topic.
pub(crate) const NOTICE_PARTITIONS: Duration = Duration::from_secs(5);
/// The same in librdkafka's unit. Its default of 300,000 ms leaves new partitions unread for minutes.
const NOTICE_PARTITIONS_MS: &str = "5000";

/// Searches the system's folder with the certificates of authorities. An OpenSSL that is compiled into the program
/// looks in its own folder, which no system has. librdkafka handles this only if its own `configure` found the library.
const AUTHORITIES: (&str, &str) = ("ssl.ca.location", "probe");
/// Variables that tell OpenSSL where to look. The result of a search would override them.
const AUTHORITIES_OF_OPENSSL: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The default of `message.max.bytes`.
pub const LARGEST_MESSAGE: usize = 1_000_000;

impl KafkaSettings {
    /// Lets librdkafka find the system's authorities, unless variables tell OpenSSL where to look. The user's
    /// properties are set later and override this.
    pub(crate) fn find_authorities(config: &mut ClientConfig) {
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

    /// The brokers, without surrounding spaces.
    pub(crate) fn bootstrap_servers(&self) -> String {
        let brokers: Vec<&str> = self.brokers.split(',').map(str::trim).collect();
        brokers.join(",")
    }

    /// The base configuration of every client: our defaults, then the user's properties.
    #[must_use]
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.bootstrap_servers())
            .set("client.id", "tandem")
            .set("socket.keepalive.enable", "true")
            .set("socket.timeout.ms", "20000")
            // If packets get lost, the reason must be known before a request times out.
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

    /// Adds the defaults of one kind of client, except for properties that the user has set.
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

    /// The largest message that a producer accepts, in bytes: the property `message.max.bytes`.
    #[must_use]
    pub fn largest_message(&self) -> usize {
        self.effective_properties()
            .iter()
            .rev()
            .find(|(key, _)| key == "message.max.bytes")
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(LARGEST_MESSAGE)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::tests::with_properties;

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
    fn the_largest_message_is_what_the_property_says_or_librdkafkas_own() {
        let settings = |sizes: &[&str]| {
            let set = |size: &&str| format!("message.max.bytes={size}");
            with_properties(&sizes.iter().map(set).collect::<Vec<_>>())
        };
        assert_eq!(settings(&[]).largest_message(), LARGEST_MESSAGE);
        assert_eq!(settings(&["2000", "3000"]).largest_message(), 3_000);
        // The client reports what is wrong with it.
        assert_eq!(settings(&["many"]).largest_message(), LARGEST_MESSAGE);
        let config = settings(&["3000"]).client_config();
        assert_eq!(config.get("message.max.bytes"), Some("3000"));
    }
}
