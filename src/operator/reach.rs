//! Finds the system that a command acts on: from flags and environment, otherwise from the record of a running `tandem
//! up`, otherwise at the default addresses.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use clap::Args;
use secrecy::SecretString;
use tandem_assembly::admin::AdminToken;
use tandem_event_path::sealing::{KeyError, Sealer, SealingSettings};
use tandem_front_door::TlsSettings;
use tandem_log_kafka::settings::{KafkaSettings, SaslSettings};
use tokio::net::TcpStream;

use super::service::{Operator, REFUSED, Service};
use crate::running::Found;

/// The default port of a Kafka broker.
pub(crate) const KAFKA_PORT: u16 = 9092;
/// Time limit for a server to accept a connection.
const SERVER_LIMIT: Duration = Duration::from_secs(2);

/// Which system, and the key that opens it. The same flags at every command of an operator, before or behind its last word.
#[derive(Args, Clone, Debug)]
pub(crate) struct Place {
    /// Data directory of the `tandem up` that runs the system: its addresses and its sealing key are used unless others are given.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem",
        global = true
    )]
    pub(crate) data_dir: PathBuf,

    /// The sealing key: 32 bytes as base64. Only by environment, so that it shows in no process list.
    #[arg(
        long,
        env = "TANDEM_SEALING_KEY",
        value_name = "BASE64",
        hide = true,
        hide_env_values = true,
        global = true
    )]
    sealing_key: Option<SecretString>,

    /// File that holds the sealing key: 32 bytes as base64.
    #[arg(
        long,
        env = "TANDEM_SEALING_KEY_FILE",
        value_name = "FILE",
        global = true
    )]
    sealing_key_file: Option<PathBuf>,

    /// Command that prints the sealing key, as such a file holds it.
    #[arg(
        long,
        env = "TANDEM_SEALING_KEY_COMMAND",
        value_name = "COMMAND",
        global = true
    )]
    sealing_key_command: Option<String>,

    /// Token with the scope `operations`, where authentication is on; without one the command shows that it has the sealing key. Only by
    /// environment, so that it shows in no process list.
    #[arg(
        long,
        env = "TANDEM_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        global = true
    )]
    token: Option<SecretString>,

    /// Certificate to show to services, in PEM.
    #[arg(
        long,
        env = "TANDEM_TLS_CERTIFICATE",
        value_name = "FILE",
        global = true
    )]
    tls_certificate: Option<PathBuf>,

    /// The certificate's key in PEM.
    #[arg(long, env = "TANDEM_TLS_KEY", value_name = "FILE", global = true)]
    tls_key: Option<PathBuf>,

    /// Certificates, in PEM, of the authority that services are trusted by.
    #[arg(long, env = "TANDEM_TLS_CA", value_name = "FILE", global = true)]
    tls_ca: Option<PathBuf>,
}

/// Where the services answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Services {
    /// Where accounts answers; unless given, as the running `tandem up` says, else http://127.0.0.1:8080.
    #[arg(
        long,
        env = "TANDEM_ACCOUNTS_URL",
        value_name = "URL",
        value_parser = base_url,
        global = true
    )]
    accounts_url: Option<String>,

    /// Where orders answers; unless given, as the running `tandem up` says, else http://127.0.0.1:8085.
    #[arg(
        long,
        env = "TANDEM_ORDERS_URL",
        value_name = "URL",
        value_parser = base_url,
        global = true
    )]
    orders_url: Option<String>,
}

/// How Kafka is reached.
#[derive(Args, Clone, Debug)]
pub(crate) struct KafkaPlace {
    /// Kafka brokers, HOST:PORT, separated by commas; unless given, as the running `tandem up` says, else 127.0.0.1:9092.
    #[arg(
        long,
        env = "TANDEM_KAFKA_BROKERS",
        value_name = "HOST:PORT,…",
        global = true
    )]
    kafka_brokers: Option<String>,

    /// Any librdkafka property; may be given many times (in the environment: one a line).
    #[arg(
        long = "kafka-property",
        env = "TANDEM_KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        global = true
    )]
    kafka_properties: Vec<String>,

    /// What the names of the system's topics begin with; unless given, as the running `tandem up` says, else nothing.
    #[arg(
        long,
        env = "TANDEM_TOPIC_PREFIX",
        value_name = "PREFIX",
        value_parser = tandem_log_kafka::settings::parse_prefix,
        global = true
    )]
    topic_prefix: Option<String>,

    #[command(flatten)]
    sasl: SaslSettings,
}

impl Place {
    /// The system that runs on the data directory.
    pub(crate) fn found(&self) -> Found {
        Found::in_directory(&self.data_dir)
    }

    /// Whether flags or environment name a sealing key.
    pub(crate) fn names_a_key(&self) -> bool {
        self.sealing_key.is_some()
            || self.sealing_key_file.is_some()
            || self.sealing_key_command.is_some()
    }

    /// The settings of the sealing key: as given, otherwise those of the running system, otherwise the file in the data
    /// directory.
    pub(crate) fn sealing(&self, found: &Found) -> SealingSettings {
        let given = self.names_a_key();
        let usual = || {
            found
                .alive()
                .and_then(|running| running.sealing_key_file.clone())
                .unwrap_or_else(|| self.data_dir.join("sealing.key"))
        };
        SealingSettings {
            sealing_key: self.sealing_key.clone(),
            sealing_key_file: if given {
                self.sealing_key_file.clone()
            } else {
                Some(usual())
            },
            sealing_key_command: self.sealing_key_command.clone(),
        }
    }

    /// The token that proves that the command has the sealing key.
    fn token_of_the_sealing_key(&self, found: &Found) -> anyhow::Result<SecretString> {
        let sealer = match Sealer::from_settings(&self.sealing(found)) {
            Ok(sealer) => sealer,
            Err(KeyError::Unreadable { path, .. }) if !self.names_a_key() && !path.exists() => {
                bail!(
                    "{}, and there is no sealing key in it to sign an operator's request with: name the directory of a running system \
                     with --data-dir, or its key with --sealing-key-file",
                    found.told(&self.data_dir)
                )
            }
            Err(error) => return Err(error.into()),
        };
        Ok(AdminToken::of(&sealer).reveal().to_owned().into())
    }

    /// The certificates of the system's own ports.
    pub(crate) fn tls(&self) -> TlsSettings {
        TlsSettings {
            tls_certificate: self.tls_certificate.clone(),
            tls_key: self.tls_key.clone(),
            tls_ca: self.tls_ca.clone(),
        }
    }

    /// A client of a service's `/admin` routes.
    ///
    /// # Errors
    /// When there is no sealing key.
    pub(super) fn operator(
        &self,
        services: &Services,
        service: Service,
    ) -> anyhow::Result<Operator> {
        let found = self.found();
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.token_of_the_sealing_key(&found)?,
        };
        let (base, advice) = services.address(service, &found, self);
        Operator::new(service, &base, advice, token, &self.tls())
    }
}

impl Services {
    /// Whether flags or environment name a service's URL.
    pub(crate) fn is_given(&self) -> bool {
        self.accounts_url.is_some() || self.orders_url.is_some()
    }

    /// The base URL of a service, and the advice for when it does not answer.
    pub(crate) fn address(
        &self,
        service: Service,
        found: &Found,
        place: &Place,
    ) -> (String, String) {
        let (given, port) = match service {
            Service::Accounts => (&self.accounts_url, 8080),
            Service::Orders => (&self.orders_url, 8085),
        };
        let name = service.name();
        let told = found.told(&place.data_dir);
        match (given, found.alive()) {
            (Some(url), _) => (
                url.trim_end_matches('/').to_owned(),
                format!("see --{name}-url (TANDEM_{}_URL)", name.to_uppercase()),
            ),
            (None, Some(running)) => {
                let url = match service {
                    Service::Accounts => &running.accounts,
                    Service::Orders => &running.orders,
                };
                (
                    url.clone(),
                    format!("{told}: its log says what {name} does"),
                )
            }
            (None, None) => (
                format!("http://127.0.0.1:{port}"),
                format!(
                    "{told}: start one, name its directory with --data-dir, or the service with --{name}-url"
                ),
            ),
        }
    }
}

impl KafkaPlace {
    /// Whether flags or environment name brokers.
    pub(crate) fn is_given(&self) -> bool {
        self.kafka_brokers.is_some()
    }

    /// Brokers and properties of the connection.
    ///
    /// # Errors
    /// When the running system has secret properties, which are not recorded, and they are not given. Also when no
    /// broker can be reached.
    pub(crate) async fn settings(
        &self,
        found: &Found,
        place: &Place,
    ) -> anyhow::Result<KafkaSettings> {
        let told = found.told(&place.data_dir);
        let (brokers, advice) = match (&self.kafka_brokers, found.alive()) {
            (Some(brokers), _) => (
                brokers.clone(),
                "see --kafka-brokers (TANDEM_KAFKA_BROKERS)".to_owned(),
            ),
            (None, Some(running)) => (running.kafka_brokers.clone(), told),
            (None, None) => (
                "127.0.0.1:9092".to_owned(),
                format!(
                    "{told}: start one, name its directory with --data-dir, or Kafka with --kafka-brokers"
                ),
            ),
        };
        let mut properties = self.kafka_properties.clone();
        if properties.is_empty()
            && let Some(running) = found.alive().filter(|_| self.kafka_brokers.is_none())
        {
            if !running.secret_kafka_properties.is_empty() {
                bail!(
                    "the running `tandem up` was given {}, which it writes down nowhere: give this command the same --kafka-property or \
                     TANDEM_KAFKA_PROPERTIES",
                    running.secret_kafka_properties.join(", ")
                );
            }
            properties.clone_from(&running.kafka_properties);
        }
        if let Err(reason) = reachable(&brokers, KAFKA_PORT).await {
            bail!("Kafka at {brokers} cannot be reached ({reason}); {advice}");
        }
        let running = found.alive().filter(|_| self.kafka_brokers.is_none());
        let topic_prefix = self.topic_prefix.clone();
        let topic_prefix = topic_prefix
            .or_else(|| running.map(|running| running.topic_prefix.clone()))
            .unwrap_or_default();
        let settings = KafkaSettings {
            brokers,
            properties,
            sasl: self.sasl.clone(),
            topic_prefix,
            ..KafkaSettings::default()
        };
        settings.check()?;
        Ok(settings)
    }
}

/// Whether any server of a list (`[SCHEME://]HOST[:PORT]`, separated by commas) accepts a connection. Tries all at
/// once.
///
/// # Errors
/// Why the first of them cannot be reached.
#[expect(clippy::disallowed_methods, reason = "a command runs on real time")]
pub(crate) async fn reachable(servers: &str, usual_port: u16) -> Result<(), String> {
    let tried = servers
        .split(',')
        .map(|server| server.rsplit("://").next().unwrap_or_default().trim())
        .filter(|server| !server.is_empty())
        .map(async |server| {
            let host_and_port = with_port(server, usual_port);
            match tokio::time::timeout(SERVER_LIMIT, TcpStream::connect(&host_and_port)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(connection_error(server, &error)),
                Err(_) => Err(format!("no answer within {} s", SERVER_LIMIT.as_secs())),
            }
        });
    let mut outcomes = futures::future::join_all(tried).await;
    if outcomes.iter().any(Result::is_ok) {
        return Ok(());
    }
    if outcomes.is_empty() {
        return Err("none is named; write HOST:PORT".to_owned());
    }
    outcomes.swap_remove(0)
}

fn with_port(server: &str, usual: u16) -> String {
    let after_address = server.rsplit(']').next().unwrap_or(server);
    if after_address.contains(':') {
        server.to_owned()
    } else {
        format!("{server}:{usual}")
    }
}

fn connection_error(broker: &str, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => REFUSED.to_owned(),
        std::io::ErrorKind::InvalidInput => format!("`{broker}` is not HOST:PORT"),
        _ => error.to_string(),
    }
}

/// Checks the base URL of a service.
fn base_url(text: &str) -> Result<String, String> {
    let url = text.trim();
    let behind = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    match behind {
        Some(host) if !host.is_empty() => Ok(url.to_owned()),
        _ => Err("write http://HOST:PORT or https://HOST:PORT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_no_url() {
        assert_eq!(base_url("http://a:1\n").unwrap(), "http://a:1");
        for none in ["localhost:8085", "", "ftp://a", "http://"] {
            assert!(base_url(none).unwrap_err().contains("http://HOST:PORT"));
        }
    }

    #[test]
    fn a_server_without_a_port_has_the_usual_one() {
        for (server, full) in [
            ("localhost", "localhost:9092"),
            ("localhost:1", "localhost:1"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(with_port(server, KAFKA_PORT), full);
        }
    }

    #[tokio::test]
    async fn one_server_of_a_list_is_enough_and_a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let open = listener.local_addr().unwrap().to_string();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shut = closed.local_addr().unwrap().to_string();
        drop(closed);
        assert_eq!(
            reachable(&format!("{shut},PLAINTEXT://{open}"), 1).await,
            Ok(())
        );
        let refused = reachable(&shut, 1).await.unwrap_err();
        assert_eq!(refused, "connection refused: nothing listens on that port");
        assert!(reachable(" ,", 1).await.unwrap_err().contains("HOST:PORT"));
    }
}
