//! The services that make the system: how each is called, and where it answers.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};

use super::{UpSettings, authentication::Authentication, readiness::Probe};

/// One process of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// The embedded broker.
    Broker,
    /// The accounts subgraph.
    Accounts,
    /// The orders subgraph.
    Orders,
    /// The gateway.
    Router,
}

impl Service {
    /// The subcommand, which is also how the user knows it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Accounts => "accounts",
            Self::Orders => "orders",
            Self::Router => "router",
        }
    }

    /// What its port is called among the flags of `up`.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Router => "gateway",
            other => other.name(),
        }
    }

    /// How long it may take to end after SIGTERM. Together they stay under five seconds.
    pub(super) fn patience(self) -> Duration {
        Duration::from_millis(match self {
            Self::Router => 1_300,
            Self::Orders | Self::Accounts => 1_400,
            Self::Broker => 500,
        })
    }
}

/// How the processes are started, worked out from the settings of `up`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) settings: UpSettings,
    /// This program.
    pub(super) executable: PathBuf,
    /// The data directory, absolute.
    pub(super) directory: PathBuf,
    /// The file with the sealing key, absolute; none when the key itself is given.
    pub(super) key_file: Option<PathBuf>,
    /// What every child finds in its environment.
    pub(super) inherited: Vec<(&'static str, String)>,
    /// What shows a service that an operator asks; none where tokens are asked for.
    pub(super) operator_token: Option<SecretString>,
    /// Whether tokens are asked for, and whose.
    pub(super) authentication: Authentication,
}

/// A program with its arguments and what its environment has beside the inherited one.
pub(super) struct Call {
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Plan {
    /// Whether a process that dies is started again.
    pub(super) fn restarts(&self) -> bool {
        !self.settings.no_restart
    }

    /// Where the processes' logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Whether the broker is one of the processes.
    pub(super) fn has_broker(&self) -> bool {
        self.settings.kafka_brokers.is_none()
    }

    fn port(&self, service: Service) -> u16 {
        match service {
            Service::Broker => self.settings.broker_port,
            Service::Accounts => self.settings.accounts_port,
            Service::Orders => self.settings.orders_port,
            Service::Router => self.settings.gateway_port,
        }
    }

    pub(super) fn address(&self, service: Service) -> String {
        let scheme = match self.settings.tls.tls_certificate {
            Some(_) => "https",
            None => "http",
        };
        format!("{scheme}://127.0.0.1:{}", self.port(service))
    }

    pub(super) fn brokers(&self) -> String {
        self.settings
            .kafka_brokers
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{}", self.port(Service::Broker)))
    }

    /// The certificates, for every process. A path that cannot be made absolute is reported by the process that cannot read it.
    fn certificates(&self) -> impl Iterator<Item = (&'static str, String)> {
        let tls = &self.settings.tls;
        let files = [
            ("TANDEM_TLS_CERTIFICATE", &tls.tls_certificate),
            ("TANDEM_TLS_KEY", &tls.tls_key),
            ("TANDEM_TLS_CA", &tls.tls_ca),
        ];
        files.into_iter().filter_map(|(name, file)| {
            let file = file.as_deref()?;
            let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
            Some((name, file.display().to_string()))
        })
    }

    /// How to find out that the service is ready.
    pub(super) fn probe(&self, service: Service) -> Probe {
        match service {
            Service::Broker => Probe::Kafka(self.port(service)),
            _ => Probe::Http(format!(
                "{}/actuator/health/readiness",
                self.address(service)
            )),
        }
    }

    /// How to find out that the service lives.
    pub(super) fn life(&self, service: Service) -> Probe {
        match service {
            Service::Broker => Probe::Kafka(self.port(service)),
            _ => Probe::Http(format!(
                "{}/actuator/health/liveness",
                self.address(service)
            )),
        }
    }

    /// How long a service may be silent before it counts as hanging; `None` for as long as it likes.
    pub(super) fn hang_limit(&self) -> Option<Duration> {
        (self.settings.hang_limit_seconds > 0)
            .then(|| Duration::from_secs(self.settings.hang_limit_seconds))
    }

    /// Where a service notes the requests that it is answering.
    fn serving_file(&self, service: Service) -> PathBuf {
        self.logs().join(format!("{}.serving", service.name()))
    }

    /// Requests to whose end a service that has died did not come.
    pub(super) fn left_by(&self, service: Service) -> Vec<String> {
        // A broker serves none, and one that died at its start has none.
        tandem_front_door::left_in_serving_file(&self.serving_file(service)).unwrap_or_default()
    }

    /// What to run. Secrets go by the environment: arguments can be read by every user of the machine.
    pub(super) fn call(&self, service: Service) -> Call {
        let mut arguments: Vec<OsString> = vec![
            service.name().into(),
            "--exit-with-parent".into(),
            "--port".into(),
            self.port(service).to_string().into(),
        ];
        let mut flag = |name: &str, value: &Path| arguments.extend([name.into(), value.into()]);
        let mut environment = self.inherited.clone();
        environment.extend(self.settings.handed_on.environment());
        environment.extend(self.certificates());
        let serving = self.serving_file(service).display().to_string();
        environment.push((tandem_front_door::SERVING_FILE, serving));
        match service {
            Service::Broker => flag("--data-dir", &self.directory.join("broker")),
            Service::Accounts | Service::Orders => {
                flag("--data-dir", &self.directory);
                flag("--kafka-brokers", Path::new(&self.brokers()));
                if let Some(uri) = &self.settings.mongodb_uri {
                    environment.push(("TANDEM_MONGODB_URI", uri.expose_secret().to_owned()));
                }
                if !self.settings.kafka_properties.is_empty() {
                    environment.push((
                        "TANDEM_KAFKA_PROPERTIES",
                        self.settings.kafka_properties.join("\n"),
                    ));
                }
                // On a Kafka of others a second system of this name could be a member of the same groups.
                if self.has_broker() {
                    environment.push(("TANDEM_KAFKA_INSTANCE", service.name().to_owned()));
                }
                if !self.settings.topic_prefix.is_empty() {
                    let prefix = self.settings.topic_prefix.clone();
                    environment.push(("TANDEM_TOPIC_PREFIX", prefix));
                }
                if self.settings.claim_topics {
                    environment.push(("TANDEM_CLAIM_TOPICS", "true".to_owned()));
                }
                if self.settings.accept_truncated_log {
                    environment.push(("TANDEM_ACCEPT_TRUNCATED_LOG", "true".to_owned()));
                }
                if let Some(key) = &self.settings.sealing.sealing_key {
                    environment.push(("TANDEM_SEALING_KEY", key.expose_secret().to_owned()));
                }
                if let Some(command) = &self.settings.sealing.sealing_key_command {
                    environment.push(("TANDEM_SEALING_KEY_COMMAND", command.clone()));
                }
                if let Some(file) = &self.key_file {
                    environment.push(("TANDEM_SEALING_KEY_FILE", file.display().to_string()));
                }
            }
            Service::Router => {
                flag("--data-dir", &self.directory);
                flag(
                    "--accounts-url",
                    Path::new(&self.address(Service::Accounts)),
                );
                flag("--orders-url", Path::new(&self.address(Service::Orders)));
                if !self.authentication.is_on() {
                    flag("--kills", &self.directory);
                    if let Some(token) = &self.operator_token {
                        let token = token.expose_secret().to_owned();
                        environment.push(("TANDEM_OPERATOR_TOKEN", token));
                    }
                }
            }
        }
        Call {
            executable: self.executable.clone(),
            arguments,
            environment,
        }
    }

    /// What is said when everything answers: the line that says so, then where to go and a first query to paste.
    pub(super) fn welcome(&self, after: Duration) -> (String, Vec<String>) {
        let gateway = self.address(Service::Router);
        let ready = format!(
            "ready after {:.1} s: gateway {gateway}/graphql, accounts {}, orders {}, Kafka {}, authentication {}",
            after.as_secs_f64(),
            self.address(Service::Accounts),
            self.address(Service::Orders),
            self.brokers(),
            if self.authentication.is_on() {
                "on"
            } else {
                "off"
            },
        );
        let (who, token) = self.authentication.told();
        let header = token.map_or_else(String::new, |token| {
            format!(" -H 'authorization: Bearer {token}'")
        });
        let rest = vec![
            String::new(),
            format!("  start page  {gateway}/"),
            format!("  live        {gateway}/live"),
            format!("  operations  {gateway}/operations"),
            format!("  GraphiQL    {gateway}/graphql"),
            format!("  data, logs  {}", self.directory.display()),
            format!("  who may     {who}"),
            String::new(),
            "A first query to paste into another terminal:".to_owned(),
            String::new(),
            format!(
                "  curl -s {gateway}/graphql -H 'content-type: application/json'{header} -d '{{\"query\":\"{FIRST_QUERY}\"}}'"
            ),
            String::new(),
            "Ctrl-C stops everything.".to_owned(),
        ];
        (ready, rest)
    }
}

/// Quotes are escaped for JSON.
const FIRST_QUERY: &str = "mutation { createCustomer(input: { name: { firstName: \\\"Ada\\\", lastName: \\\"Lovelace\\\" }, contact: { primaryPhone: \\\"555-666-7777\\\", email: \\\"ada@example.com\\\" } }) { customer { id revision name { firstName lastName } } } }";
