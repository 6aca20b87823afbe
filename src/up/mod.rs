//! `tandem up`: the whole system on one machine, as child processes that are started, watched and stopped together.
//!
//! - [`data_directory`]: the directory that holds everything, and the lock that only one `up` can have.
//! - [`ports`]: whether the ports are free, told before anything starts.
//! - [`service`]: how each process is called and when it counts as ready.
//! - [`child`] and [`child_log`]: one process and what it says.
//! - [`supervision`]: starting again what dies, and stopping all in order.
//! - [`terminal`]: what the user sees.

mod child;
mod child_log;
mod data_directory;
mod ports;
mod readiness;
mod service;
mod supervision;
mod terminal;

use std::{path::PathBuf, time::Instant};

use anyhow::Context;
use secrecy::SecretString;
use tandem_kit::shutdown::{Shutdown, ShutdownSettings};

use data_directory::DataDirectory;
use service::{Plan, Service};
use supervision::Supervision;
use terminal::Terminal;

/// What `tandem up` can be told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpSettings {
    /// Directory for all data, logs and the sealing key. It is made when it does not exist.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    pub(crate) data_dir: PathBuf,

    /// Port of the accounts service, on the loopback interface.
    #[arg(long, env = "TANDEM_ACCOUNTS_PORT", value_name = "PORT", default_value_t = 8080, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) accounts_port: u16,

    /// Port of the orders service.
    #[arg(long, env = "TANDEM_ORDERS_PORT", value_name = "PORT", default_value_t = 8085, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) orders_port: u16,

    /// Port of the gateway.
    #[arg(long, env = "TANDEM_GATEWAY_PORT", value_name = "PORT", default_value_t = 9090, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) gateway_port: u16,

    /// Port of the embedded broker.
    #[arg(long, env = "TANDEM_BROKER_PORT", value_name = "PORT", default_value_t = 9092, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) broker_port: u16,

    /// MongoDB in place of the embedded stores; the databases are `accounts` and `orders`.
    #[arg(
        long,
        env = "TANDEM_MONGODB_URI",
        value_name = "URI",
        hide_env_values = true
    )]
    pub(crate) mongodb_uri: Option<SecretString>,

    /// Kafka in place of the embedded broker: HOST:PORT, separated by commas.
    #[arg(long, env = "TANDEM_KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub(crate) kafka_brokers: Option<String>,

    /// Any librdkafka property; may be given many times (in the environment: one a line).
    #[arg(
        long = "kafka-property",
        env = "TANDEM_KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true,
        value_parser = key_and_value
    )]
    pub(crate) kafka_properties: Vec<String>,

    /// Leave a process that died dead, to see how the rest carries on.
    #[arg(long, env = "TANDEM_NO_RESTART")]
    pub(crate) no_restart: bool,
}

/// librdkafka's properties are checked by the services; here only their form is.
fn key_and_value(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("write KEY=VALUE, for example security.protocol=SASL_SSL".to_owned()),
    }
}

/// Runs the system until SIGINT or SIGTERM. Every child finds `inherited` in its environment.
///
/// # Errors
///
/// One sentence, when a setting does not fit or a process does not become ready.
pub(crate) async fn run(
    settings: UpSettings,
    inherited: Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let terminal = Terminal::new();
    let directory = DataDirectory::open(&settings.data_dir)?;
    ports::check(&ports_in_use(&settings), directory.was_left_in_a_hurry()).await?;
    let key_file = directory.sealing_key_file()?;
    let executable =
        std::env::current_exe().context("the path of the running program is unknown")?;
    let plan = Plan {
        settings,
        executable,
        directory: directory.path().to_owned(),
        key_file,
        inherited,
    };

    // The signals are handled before the first child exists, so that none is left behind.
    let shutdown = Shutdown::install(&ShutdownSettings::default())?;
    let mut supervision = Supervision::new(plan, terminal.clone(), shutdown);
    let outcome = supervision.start().await;
    if let Ok(true) = outcome {
        terminal.finish_progress();
        for line in supervision.plan().welcome(begin.elapsed()) {
            terminal.say(&line);
        }
        supervision.until_stopped().await;
    }
    supervision.stop().await;
    terminal.finish_progress();
    directory.left_in_order();
    outcome.map(drop)
}

/// The ports that must be free, each with the flag that changes it.
fn ports_in_use(settings: &UpSettings) -> Vec<(u16, Service)> {
    let mut ports = vec![
        (settings.accounts_port, Service::Accounts),
        (settings.orders_port, Service::Orders),
        (settings.gateway_port, Service::Router),
    ];
    if settings.kafka_brokers.is_none() {
        ports.push((settings.broker_port, Service::Broker));
    }
    ports
}
