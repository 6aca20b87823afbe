//! `tandem up`: runs the whole system on one machine, as child processes that it starts, supervises and stops together.
//!
//! - [`data_directory`]: the directory that holds all data, and the lock that only one `up` can hold.
//! - [`ports`]: checks that the ports are free before anything starts.
//! - [`service`]: how each process is called, and when it counts as ready.
//! - [`handed_on`]: settings that `up` passes on to the services.
//! - [`authentication`]: a development key for tokens, on a developer's machine.
//! - [`record`]: the file that tells the operator's commands what runs.
//! - [`servers`]: warns about a MongoDB or Kafka that cannot be reached, while the services wait for it.
//! - [`child`] and [`child_log`]: one process and its output.
//! - [`supervision`]: restarts processes that die, and stops all of them in order.
//! - [`terminal`]: what the user sees.

mod authentication;
mod child;
mod child_log;
mod data_directory;
mod handed_on;
mod ports;
mod readiness;
mod record;
mod servers;
mod service;
mod supervision;
mod terminal;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::Context;
use secrecy::SecretString;
use tandem_assembly::admin::AdminToken;
use tandem_authentication::AuthenticationSettings;
use tandem_event_path::sealing::{Sealer, SealingSettings};
use tandem_front_door::TlsSettings;
use tandem_runtime::shutdown::{HARD_EXIT_CODE, Shutdown, ShutdownSettings};
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{self, BrokerError},
    disk::short_of_room,
};
use authentication::Authentication;
use data_directory::DataDirectory;
use handed_on::HandedOn;
use readiness::Prober;
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
    // Validated later: clap quotes a value that it refuses, and this value may hold a password.
    #[arg(
        long = "kafka-property",
        env = "TANDEM_KAFKA_PROPERTIES",
        value_name = "KEY=VALUE",
        value_delimiter = '\n',
        hide_env_values = true
    )]
    pub(crate) kafka_properties: Vec<String>,

    /// Fill a new store from a log that has lost its beginning, and take what is left for all there ever was.
    #[arg(long, env = "TANDEM_ACCEPT_TRUNCATED_LOG")]
    pub(crate) accept_truncated_log: bool,

    /// What the names of all topics and consumer groups begin with: for a second system on the same Kafka.
    #[arg(
        long,
        env = "TANDEM_TOPIC_PREFIX",
        value_name = "PREFIX",
        default_value = "",
        hide_default_value = true,
        value_parser = tandem_log_kafka::settings::parse_prefix
    )]
    pub(crate) topic_prefix: String,

    /// Claim the topics for these stores whichever stores have claimed them before.
    #[arg(long, env = "TANDEM_CLAIM_TOPICS")]
    pub(crate) claim_topics: bool,

    /// Leave a process that died dead, to see how the rest carries on.
    #[arg(long, env = "TANDEM_NO_RESTART")]
    pub(crate) no_restart: bool,

    /// For how many seconds a process may answer nothing before it counts as hanging and is started again; 0 for as long as it likes.
    #[arg(long, env = "TANDEM_HANG_LIMIT_SECONDS", value_name = "SECONDS", default_value_t = 30, value_parser = hang_limit)]
    pub(crate) hang_limit_seconds: u64,

    /// Ask for tokens: makes a development key in the data directory and prints a token. `tandem token` makes more.
    #[arg(long, env = "TANDEM_UP_AUTH", conflicts_with_all = ["jwks", "insecure_no_auth"])]
    pub(crate) auth: bool,

    /// Whose tokens are taken by all parts.
    #[command(flatten)]
    pub(crate) authentication: AuthenticationSettings,

    /// The key that seals what is personal and secret; without one `up` makes a key in its data directory.
    #[command(flatten)]
    sealing: SealingSettings,

    /// Certificates of all three ports; they must be good for 127.0.0.1.
    #[command(flatten)]
    pub(crate) tls: TlsSettings,

    #[command(flatten)]
    handed_on: HandedOn,
}

fn hang_limit(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(seconds @ (0 | 5..=3_600)) => Ok(seconds),
        _ => Err("give seconds from 5 to 3600, or 0 for no limit".to_owned()),
    }
}

/// Runs the system until SIGINT or SIGTERM. Every child gets `inherited` in its environment.
///
/// # Errors
///
/// One sentence, when a setting does not fit or a process does not become ready.
#[expect(clippy::disallowed_methods, reason = "how long a start took is shown")]
pub(crate) async fn run(
    settings: UpSettings,
    inherited: Vec<(&'static str, String)>,
) -> anyhow::Result<()> {
    let begin = Instant::now();
    let terminal = Terminal::new();
    let directory = DataDirectory::open(&settings.data_dir)?;
    let plan = match plan(settings, inherited, &directory, &terminal).await {
        Ok(plan) => plan,
        Err(problem) => {
            directory.nothing_was_started();
            return Err(problem);
        }
    };

    // Install the signal handlers before the first child starts, so that no child is left behind.
    let at_once = CancellationToken::new();
    let shutdown = Shutdown::install_above_others(&ShutdownSettings::default(), &at_once)?;
    let prober = Prober::new(&plan.settings.tls)?;
    let mut supervision =
        Supervision::new(plan, prober, terminal.clone(), shutdown, at_once.clone());
    let settings = supervision.plan().settings.clone();
    let absent = tokio::spawn(servers::tell_of_the_absent(settings, terminal.clone()));
    let outcome = supervision.start().await;
    absent.abort();
    if let Ok(true) = outcome {
        terminal.finish_progress();
        let (ready, rest) = supervision.plan().welcome(begin.elapsed());
        terminal.announce(&ready);
        for line in rest {
            terminal.say(&line);
        }
        supervision.until_stopped().await;
    }
    supervision.stop().await;
    terminal.finish_progress();
    supervision.close_record();
    if at_once.is_cancelled() {
        // The shutdown was not orderly, so the directory is not marked as left in order. All processes have ended.
        std::process::exit(HARD_EXIT_CODE);
    }
    directory.left_in_order();
    outcome.map(drop)
}

/// Checks everything that can be wrong before a process starts, and returns how to call each process.
async fn plan(
    settings: UpSettings,
    mut inherited: Vec<(&'static str, String)>,
    directory: &DataDirectory,
    terminal: &Terminal,
) -> anyhow::Result<Plan> {
    tandem_log_kafka::settings::pairs(&settings.kafka_properties)?;
    ports::check(&ports_in_use(&settings), directory.was_left_in_a_hurry()).await?;
    if let Some(line) = short_of_room(directory.path()) {
        terminal.say(&line);
    }
    if settings.kafka_brokers.is_none() {
        look_at_log(directory.path(), terminal)?;
    }
    let key_file = key_file(&settings, directory)?;
    let authentication = Authentication::prepare(&settings, directory.path())?;
    inherited.extend(authentication.environment());
    let operator_token = match authentication.is_on() {
        true => None,
        false => Some(operator_token(&settings.sealing, key_file.as_deref())?),
    };
    servers::check_uri(&settings)?;
    let executable =
        std::env::current_exe().context("the path of the running program is unknown")?;
    Ok(Plan {
        settings,
        executable,
        directory: directory.path().to_owned(),
        key_file,
        inherited,
        operator_token,
        authentication,
    })
}

/// The file with the sealing key. `None` when the key itself is given.
fn key_file(settings: &UpSettings, directory: &DataDirectory) -> anyhow::Result<Option<PathBuf>> {
    let sealing = &settings.sealing;
    if !sealing.names_a_key() {
        let has_embedded_stores = settings.mongodb_uri.is_none();
        return Ok(Some(directory.sealing_key_file(has_embedded_stores)?));
    }
    // An unusable key is reported at once, not by the first service that fails with it.
    Sealer::from_settings(sealing)?;
    let given = sealing
        .sealing_key_file
        .as_ref()
        .filter(|_| sealing.sealing_key.is_none());
    Ok(given.map(std::path::absolute).transpose()?)
}

/// The token that proves that an operator asks. Services and commands derive the same token from the sealing key.
fn operator_token(
    sealing: &SealingSettings,
    key_file: Option<&Path>,
) -> anyhow::Result<SecretString> {
    let sealer = Sealer::from_settings(&SealingSettings {
        sealing_key_file: key_file.map(Path::to_owned),
        ..sealing.clone()
    })?;
    Ok(AdminToken::of(&sealer).reveal().to_owned().into())
}

/// Refuses the log of an earlier version. Warns when an empty log begins beside stores that already have data.
fn look_at_log(directory: &Path, terminal: &Terminal) -> Result<(), BrokerError> {
    let log = directory.join(Service::Broker.name());
    broker::refuse_earlier(&log)?;
    let store = |service: Service| directory.join(service.name()).with_extension("redb");
    let stores = [store(Service::Accounts), store(Service::Orders)];
    if let Some(line) = broker::is_missing_beside(&log, &stores) {
        terminal.say(&line);
    }
    Ok(())
}

/// The ports that must be free, each with the service whose flag changes it.
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
