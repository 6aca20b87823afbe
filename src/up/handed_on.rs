//! Settings that `up` passes on to the services. `up` checks their syntax; the services know their meaning.

use std::path::{Path, PathBuf};

use clap::{ValueEnum, builder::RangedU64ValueParser};
use tandem_accounts::encoding::PersonalData;
use tandem_log_kafka::settings::parse_retention;
use tandem_runtime::duration::parse_time_limit;
use tandem_service::web::legacy::Sunset;

/// What is not set here is as each service has it by default.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Settings of the services")]
pub(crate) struct HandedOn {
    /// How names, contacts, addresses and cards are written into events: sealed (the default) or plain. What is once in the log in
    /// plain can never be erased.
    #[arg(long, env = "TANDEM_PERSONAL_DATA", value_enum)]
    personal_data: Option<PersonalData>,

    /// Partitions of a topic that has to be made; 6 by default.
    #[arg(long, env = "TANDEM_TOPIC_PARTITIONS", value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(1..=1000))]
    topic_partitions: Option<i32>,

    /// Copies of each partition of a topic that has to be made; -1, the default, takes the cluster's.
    #[arg(long, env = "TANDEM_TOPIC_REPLICATION", value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1..=100))]
    topic_replication: Option<i32>,

    /// Milliseconds for which a topic that has to be made keeps its events; -1, the default, keeps all, which a rebuild needs.
    #[arg(
        long,
        env = "TANDEM_TOPIC_RETENTION_MS",
        value_name = "MS",
        allow_negative_numbers = true,
        value_parser = parse_retention
    )]
    topic_retention_ms: Option<i64>,

    /// Messages that the replica of orders may be behind before orders is not ready. Not set: any number, because all instances share the
    /// replica.
    #[arg(long, env = "TANDEM_REPLICA_UNREADY_LAG", value_name = "MESSAGES")]
    replica_unready_lag: Option<u64>,

    /// How long an answer of a service may take, such as 10s (the default) or 500ms.
    #[arg(long, env = "TANDEM_REQUEST_TIMEOUT", value_name = "DURATION", value_parser = duration)]
    request_timeout: Option<String>,

    /// The largest body that a service takes, in bytes; 1048576 by default.
    #[arg(long, env = "TANDEM_MAX_BODY", value_name = "BYTES", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    max_body: Option<usize>,

    /// When the REST routes of older clients will be gone: a day such as 2027-06-30, or a moment.
    #[arg(long, env = "TANDEM_REST_SUNSET", value_name = "DATE", value_parser = date)]
    rest_sunset: Option<String>,

    /// Supergraph that the gateway serves instead of the built-in one.
    #[arg(long, env = "TANDEM_SUPERGRAPH", value_name = "FILE")]
    supergraph: Option<PathBuf>,

    /// Configuration of the gateway's router instead of the built-in one.
    #[arg(long, env = "TANDEM_ROUTER_CONFIG", value_name = "FILE")]
    router_config: Option<PathBuf>,
}

/// Checked here, but interpreted by the service.
fn duration(text: &str) -> Result<String, String> {
    parse_time_limit(text).map(|_| text.to_owned())
}

fn date(text: &str) -> Result<String, String> {
    Sunset::parse(text).map(|_| text.to_owned())
}

impl HandedOn {
    /// The settings as environment variables. Each service reads those that it knows.
    pub(super) fn environment(&self) -> Vec<(&'static str, String)> {
        let text = |number: Option<i64>| number.map(|number| number.to_string());
        let file = |path: &Option<PathBuf>| {
            let path = path.as_deref()?;
            // If a path cannot be made absolute, the service that cannot read it reports it.
            let path = std::path::absolute(path).unwrap_or_else(|_| Path::to_owned(path));
            Some(path.display().to_string())
        };
        let personal_data = self
            .personal_data
            .and_then(|how| Some(how.to_possible_value()?.get_name().to_owned()));
        [
            ("TANDEM_PERSONAL_DATA", personal_data),
            (
                "TANDEM_TOPIC_PARTITIONS",
                text(self.topic_partitions.map(i64::from)),
            ),
            (
                "TANDEM_TOPIC_REPLICATION",
                text(self.topic_replication.map(i64::from)),
            ),
            ("TANDEM_TOPIC_RETENTION_MS", text(self.topic_retention_ms)),
            (
                "TANDEM_REPLICA_UNREADY_LAG",
                self.replica_unready_lag.map(|lag| lag.to_string()),
            ),
            ("TANDEM_REQUEST_TIMEOUT", self.request_timeout.clone()),
            (
                "TANDEM_MAX_BODY",
                self.max_body.map(|bytes| bytes.to_string()),
            ),
            ("TANDEM_REST_SUNSET", self.rest_sunset.clone()),
            ("TANDEM_SUPERGRAPH", file(&self.supergraph)),
            ("TANDEM_ROUTER_CONFIG", file(&self.router_config)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::{Args, Command};

    use super::*;

    #[test]
    fn what_is_said_of_a_default_is_what_the_services_have() {
        let up = HandedOn::augment_args(Command::new("up"));
        let services = [
            tandem_accounts::service::Settings::augment_args(Command::new("accounts")),
            tandem_orders::service::Settings::augment_args(Command::new("orders")),
        ];
        let mut compared = 0;
        for handed_on in up.get_arguments() {
            let help = handed_on.get_help().unwrap().to_string();
            let theirs = services.iter().flat_map(Command::get_arguments);
            for theirs in theirs.filter(|it| it.get_env() == handed_on.get_env()) {
                match theirs.get_default_values().first() {
                    Some(default) => assert!(help.contains(default.to_str().unwrap()), "{help}"),
                    None => assert!(!help.contains("default"), "{help}"),
                }
                compared += 1;
            }
        }
        assert!(compared > 8, "{compared}");
    }
}
