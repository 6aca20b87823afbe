//! The command line: which process this is to be, and how a wrong setting is told.

mod error;
mod schema;
mod threads;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tandem_kit::{
    settings::{CONFIG_ENV, ConfigFile, SettingsError, try_parse_from},
    shutdown::{Shutdown, ShutdownSettings},
    telemetry::{LogSettings, init_logging},
};

use crate::{broker, operator, parent, router, up};
use threads::{ThreadSettings, WORKER_THREADS_ENV};

/// Tandem: customer accounts and orders as two services, Kafka between them, one GraphQL gateway in front.
///
/// Without a command it does what `tandem up` does. Every setting is a flag, an environment variable, or a line of the
/// file that --config names, in this order of precedence.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    config: ConfigFile,

    #[command(flatten)]
    log: LogSettings,

    #[command(flatten)]
    threads: ThreadSettings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: broker, accounts, orders and gateway, each a process of its own.
    Up(up::UpSettings),
    /// Run the accounts service, the system of record of customers.
    Accounts(Child<tandem_accounts::service::Settings>),
    /// Run the orders service, the system of record of orders.
    Orders(Child<tandem_orders::service::Settings>),
    /// Run the embedded broker, which speaks the Kafka protocol.
    Broker(Child<broker::BrokerSettings>),
    /// Run the gateway, which answers one GraphQL API from both services.
    Router(Child<router::RouterSettings>),
    /// Print what the services promise: their GraphQL schemas and their events' JSON Schemas.
    Schema(schema::SchemaSettings),
    /// Rebuild a service's store from the events in Kafka, while it serves.
    Rebuild(operator::RebuildSettings),
    /// List, show and retry the events that a service could not take.
    DeadLetters(operator::DeadLettersSettings),
    /// Show every change as the events in Kafka tell it.
    Audit(operator::AuditSettings),
}

/// What every process that `up` starts can be told, beside its own settings.
#[derive(Debug, Args)]
struct Child<S: Args> {
    #[command(flatten)]
    settings: S,

    #[command(flatten)]
    shutdown: ShutdownSettings,
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = match try_parse_from::<Cli, _, _>(arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(SettingsError::Arguments(problem)) => return error::report_usage(&problem),
        Err(problem) => return error::report_settings(&problem),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => error::report(&problem),
    }
}

/// `tandem` alone, or with flags alone, means `tandem up`.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut given: Vec<OsString> = given.collect();
    let asks_for_help = ["-h", "--help", "-V", "--version"];
    let first = given.get(1).map(|argument| argument.to_string_lossy());
    let is_up = first
        .is_none_or(|first| first.starts_with('-') && !asks_for_help.contains(&first.as_ref()));
    if is_up {
        given.insert(given.len().min(1), "up".into());
    }
    given
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Up(settings) => {
            let inherited = inherited(&cli.config, &cli.log, cli.threads)?;
            cli.threads
                .runtime()?
                .block_on(up::run(settings, inherited))
        }
        Command::Accounts(child) => {
            init_logging("accounts", &cli.log)?;
            cli.threads.runtime()?.block_on(async {
                let shutdown = Shutdown::install(&child.shutdown)?;
                Ok(tandem_accounts::service::run(child.settings, shutdown).await?)
            })
        }
        Command::Orders(child) => {
            init_logging("orders", &cli.log)?;
            cli.threads.runtime()?.block_on(async {
                let shutdown = Shutdown::install(&child.shutdown)?;
                Ok(tandem_orders::service::run(child.settings, shutdown).await?)
            })
        }
        Command::Broker(child) => {
            init_logging("broker", &broker::log_settings(cli.log))?;
            cli.threads.runtime()?.block_on(async {
                let shutdown = Shutdown::install(&child.shutdown)?;
                Ok(broker::run(child.settings, shutdown.token()).await?)
            })
        }
        Command::Router(child) => {
            if child.shutdown.exit_with_parent {
                parent::end_with_parent()?;
            }
            router::run(child.settings)
        }
        Command::Schema(settings) => schema::print(&settings),
        Command::Rebuild(settings) => cli.threads.runtime()?.block_on(operator::rebuild(settings)),
        Command::DeadLetters(settings) => cli
            .threads
            .runtime()?
            .block_on(operator::dead_letters(settings)),
        Command::Audit(settings) => cli.threads.runtime()?.block_on(operator::audit(settings)),
    }
}

/// The settings of all commands, as `up` hands them to its children.
fn inherited(
    config: &ConfigFile,
    log: &LogSettings,
    threads: ThreadSettings,
) -> std::io::Result<Vec<(&'static str, String)>> {
    let mut environment = vec![("RUST_LOG", log.log.clone())];
    if let Some(format) = log.log_format.to_possible_value() {
        environment.push(("TANDEM_LOG_FORMAT", format.get_name().to_owned()));
    }
    if let Some(path) = &config.config {
        environment.push((CONFIG_ENV, std::path::absolute(path)?.display().to_string()));
    }
    if let Some(threads) = threads.worker_threads {
        environment.push((WORKER_THREADS_ENV, threads.to_string()));
    }
    Ok(environment)
}
