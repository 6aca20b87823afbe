//! The services that make the system: how each is called, and where it answers.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use secrecy::ExposeSecret;

use super::{UpSettings, readiness::Probe};

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
    /// The file with the sealing key, absolute.
    pub(super) key_file: PathBuf,
    /// What every child finds in its environment.
    pub(super) inherited: Vec<(&'static str, String)>,
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

    fn address(&self, service: Service) -> String {
        format!("http://127.0.0.1:{}", self.port(service))
    }

    fn brokers(&self) -> String {
        self.settings
            .kafka_brokers
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{}", self.port(Service::Broker)))
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
                environment.push((
                    "TANDEM_SEALING_KEY_FILE",
                    self.key_file.display().to_string(),
                ));
            }
            Service::Router => {
                flag("--data-dir", &self.directory);
                flag(
                    "--accounts-url",
                    Path::new(&self.address(Service::Accounts)),
                );
                flag("--orders-url", Path::new(&self.address(Service::Orders)));
            }
        }
        Call {
            executable: self.executable.clone(),
            arguments,
            environment,
        }
    }

    /// What is said when everything answers: the addresses, and a first query to paste.
    pub(super) fn welcome(&self, after: Duration) -> Vec<String> {
        let gateway = format!("{}/graphql", self.address(Service::Router));
        vec![
            format!(
                "ready after {:.1} s: gateway {gateway}, accounts {}, orders {}, Kafka {}",
                after.as_secs_f64(),
                self.address(Service::Accounts),
                self.address(Service::Orders),
                self.brokers(),
            ),
            format!(
                "data and logs are in {}; Ctrl-C stops everything",
                self.directory.display()
            ),
            String::new(),
            format!("Open {gateway} in a browser, or paste a first query:"),
            String::new(),
            format!(
                "  curl -s {gateway} -H 'content-type: application/json' -d '{{\"query\":\"{FIRST_QUERY}\"}}'"
            ),
            String::new(),
        ]
    }
}

/// Quotes are escaped for JSON.
const FIRST_QUERY: &str = "mutation { createCustomer(input: { name: { firstName: \\\"Ada\\\", lastName: \\\"Lovelace\\\" }, contact: { primaryPhone: \\\"555-666-7777\\\", email: \\\"ada@example.com\\\" } }) { customer { id revision name { firstName lastName } } } }";
