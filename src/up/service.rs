//! The services of the system: how each one is called, and where it answers.

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
    /// The name of the subcommand. The user sees the service under this name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::Accounts => "accounts",
            Self::Orders => "orders",
            Self::Router => "router",
        }
    }

    /// The name of its port in the flags of `up`.
    pub(super) fn flag(self) -> &'static str {
        match self {
            Self::Router => "gateway",
            other => other.name(),
        }
    }

    /// How long it may take to end after SIGTERM. Together the services stay under five seconds.
    pub(super) fn patience(self) -> Duration {
        Duration::from_millis(match self {
            Self::Router => 1_300,
            Self::Orders | Self::Accounts => 1_400,
            Self::Broker => 500,
        })
    }
}

/// How to start the processes, derived from the settings of `up`.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) settings: UpSettings,
    /// The path of this program.
    pub(super) executable: PathBuf,
    /// The absolute path of the data directory.
    pub(super) directory: PathBuf,
    /// The absolute path of the file with the sealing key. `None` when the key itself is given.
    pub(super) key_file: Option<PathBuf>,
    /// Environment variables of every child.
    pub(super) inherited: Vec<(&'static str, String)>,
    /// The token that shows a service that an operator asks. `None` where callers need tokens.
    pub(super) operator_token: Option<SecretString>,
    /// Whether callers need tokens, and from which issuer.
    pub(super) authentication: Authentication,
}

/// A program, its arguments, and the variables that it gets besides the inherited environment.
pub(super) struct Call {
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(&'static str, String)>,
}

impl Plan {
    /// Whether a process that dies is restarted.
    pub(super) fn restarts(&self) -> bool {
        !self.settings.no_restart
    }

    /// The directory of the processes' logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Whether `up` runs the broker.
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

    /// The certificates, for every process. If a path cannot be made absolute, the process that cannot read it reports
    /// it.
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

    /// The probe that shows whether the service is ready.
    pub(super) fn probe(&self, service: Service) -> Probe {
        match service {
            Service::Broker => Probe::Kafka(self.port(service)),
            _ => Probe::Http(format!(
                "{}/actuator/health/readiness",
                self.address(service)
            )),
        }
    }

    /// The probe that shows whether the service is alive.
    pub(super) fn life(&self, service: Service) -> Probe {
        match service {
            Service::Broker => Probe::Kafka(self.port(service)),
            _ => Probe::Http(format!(
                "{}/actuator/health/liveness",
                self.address(service)
            )),
        }
    }

    /// How long a service may be silent before it counts as hanging. `None` for no limit.
    pub(super) fn hang_limit(&self) -> Option<Duration> {
        (self.settings.hang_limit_seconds > 0)
            .then(|| Duration::from_secs(self.settings.hang_limit_seconds))
    }

    /// The file in which a service records the requests that it is serving.
    fn serving_file(&self, service: Service) -> PathBuf {
        self.logs().join(format!("{}.serving", service.name()))
    }

    /// The requests that a service was serving when it died.
    pub(super) fn left_by(&self, service: Service) -> Vec<String> {
        // The broker has no such file, nor does a service that died at its start.
        tandem_front_door::left_in_serving_file(&self.serving_file(service)).unwrap_or_default()
    }

    /// The command to run. Secrets go in the environment, because every user of the machine can read arguments.
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
                // On a shared Kafka, a second system with this name could be a member of the same groups.
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

    /// What to print when everything answers: the line that says so, then where to go, with a first query to paste.
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

/// The quotes are escaped for JSON.
const FIRST_QUERY: &str = "mutation { createCustomer(input: { name: { firstName: \\\"Ada\\\", lastName: \\\"Lovelace\\\" }, contact: { primaryPhone: \\\"555-666-7777\\\", email: \\\"ada@example.com\\\" } }) { customer { id revision name { firstName lastName } } } }";
