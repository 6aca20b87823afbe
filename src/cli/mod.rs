//! The command line: which process or command to run, and how wrong settings are reported.

mod asyncapi;
mod compatibility;
mod documents;
mod environment;
mod error;
mod generated;
mod schema;
mod threads;
mod token;
mod traces;
mod version;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tandem_runtime::shutdown::{Shutdown, ShutdownSettings};
use tandem_service::{
    settings::{CONFIG_ENV, ConfigFile, SettingsError, try_parse_from},
    telemetry::{LogSettings, init_logging},
};

use crate::{broker, doctor, operator, parent, router, terminal, up};
use threads::{ThreadSettings, WORKER_THREADS_ENV};

/// Tandem: customer accounts and orders as two services, Kafka between them, one GraphQL gateway in front.
///
/// Without a command it does what `tandem up` does. Every setting is a flag, an environment variable, or a line of the
/// file that --config names, in this order of precedence.
#[derive(Debug, Parser)]
#[command(
    name = "tandem",
    version,
    long_version = version::VERSION.as_str(),
    override_usage = "tandem [OPTIONS] [COMMAND]"
)]
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
    /// Print what the services promise, their GraphQL schemas and their events' JSON Schemas, or check a change of it.
    Schema(schema::SchemaSettings),
    /// Print what a shell is to know of these commands, so that it completes them.
    Completions(generated::CompletionsSettings),
    /// Print the manual page, or write those of all commands into a folder.
    Man(generated::ManSettings),
    /// Make the manifest of trusted documents, of a folder of operations.
    Documents(documents::DocumentsSettings),
    /// Rebuild a service's store from the events in Kafka, while it serves.
    Rebuild(operator::RebuildSettings),
    /// Take back into a service's store what a rebuild removed and wrote to a file.
    Restore(operator::RestoreSettings),
    /// List, show and retry the events that a service could not take.
    DeadLetters(operator::DeadLettersSettings),
    /// Say which events wait for their data key, or publish keys again that the topic of keys has lost.
    Keys(operator::KeysSettings),
    /// Say whether the logs are what they were, take them as they are, or write to a log what it has lost.
    Log(operator::LogsSettings),
    /// Show every change as the events in Kafka tell it.
    Audit(operator::AuditSettings),
    /// Show what flows on the topics, decoded, and opened where the sealing key is there.
    Events(operator::EventsSettings),
    /// Sign a token with the development key of `up --auth`, and print it.
    Token(token::TokenSettings),
    /// Look at settings, data directory, ports, Kafka, MongoDB and a running system, and say what to mend.
    Doctor(doctor::DoctorSettings),
}

impl Command {
    fn is_child_of_up(&self) -> bool {
        match self {
            Self::Accounts(child) => child.shutdown.exit_with_parent,
            Self::Orders(child) => child.shutdown.exit_with_parent,
            Self::Broker(child) => child.shutdown.exit_with_parent,
            Self::Router(child) => child.shutdown.exit_with_parent,
            _ => false,
        }
    }
}

/// What every process that `up` starts can be told, beside its own settings.
#[derive(Debug, Args)]
struct Child<S: Args> {
    #[command(flatten)]
    settings: S,

    #[command(flatten)]
    shutdown: ShutdownSettings,
}

/// Runs the command that the arguments name. The result is a failure also when its output could not be written.
pub(crate) fn main() -> ExitCode {
    let ended = perform();
    match terminal::unwritten() {
        None => ended,
        Some(reason) => error::report_unwritten(reason),
    }
}

fn perform() -> ExitCode {
    let cli = match parse(std::env::args_os().collect()) {
        Ok(cli) => cli,
        Err(SettingsError::Arguments(problem)) => return error::report_usage(&problem),
        Err(problem) => return error::report_settings(&problem),
    };
    // The children of `up` inherit its environment, which `up` has already checked.
    if !cli.command.is_child_of_up() {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        });
        for sentence in environment::unknown(&Cli::command(), variables) {
            error::warn(&sentence);
        }
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => error::report(&problem),
    }
}

fn unknown_variables() -> Vec<String> {
    let variables = std::env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    });
    environment::unknown(&Cli::command(), variables)
}

/// `tandem` alone, or with flags of `up` only, means `tandem up`.
fn parse(given: Vec<OsString>) -> Result<Cli, SettingsError> {
    let names_a_command = given.get(1).is_some_and(|first| {
        let first = first.to_string_lossy();
        !first.starts_with('-') || ["-h", "--help", "-V", "--version"].contains(&first.as_ref())
    });
    if names_a_command {
        return try_parse_from(given);
    }
    let mut as_up = given.clone();
    as_up.insert(given.len().min(1), "up".into());
    match try_parse_from(as_up) {
        // A command may come after settings of all commands: `tandem --log debug audit customer 1`.
        Err(problem) if given.len() > 1 => try_parse_from(given).map_err(|_| problem),
        outcome => outcome,
    }
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
                let running =
                    async { Ok(tandem_accounts::service::run(child.settings, shutdown).await?) };
                traces::recorded("accounts", running).await
            })
        }
        Command::Orders(child) => {
            init_logging("orders", &cli.log)?;
            cli.threads.runtime()?.block_on(async {
                let shutdown = Shutdown::install(&child.shutdown)?;
                let running =
                    async { Ok(tandem_orders::service::run(child.settings, shutdown).await?) };
                traces::recorded("orders", running).await
            })
        }
        Command::Broker(child) => {
            init_logging("broker", &cli.log)?;
            cli.threads.runtime()?.block_on(async {
                let shutdown = Shutdown::install(&child.shutdown)?;
                Ok(broker::run(child.settings, shutdown.token()).await?)
            })
        }
        Command::Router(child) => {
            if child.shutdown.exit_with_parent {
                parent::end_with_parent()?;
            }
            router::run(child.settings, &cli.log)
        }
        Command::Schema(settings) => schema::run(&settings),
        Command::Completions(settings) => {
            generated::completions(&settings, Cli::command());
            Ok(())
        }
        Command::Man(settings) => generated::man(&settings, Cli::command()),
        Command::Documents(settings) => documents::run(&settings),
        Command::Rebuild(settings) => cli.threads.runtime()?.block_on(operator::rebuild(settings)),
        Command::Restore(settings) => cli.threads.runtime()?.block_on(operator::restore(settings)),
        Command::DeadLetters(settings) => cli
            .threads
            .runtime()?
            .block_on(operator::dead_letters(settings)),
        Command::Keys(settings) => cli.threads.runtime()?.block_on(operator::keys(settings)),
        Command::Log(settings) => cli.threads.runtime()?.block_on(operator::log(settings)),
        Command::Audit(settings) => cli.threads.runtime()?.block_on(operator::audit(settings)),
        Command::Events(settings) => cli.threads.runtime()?.block_on(operator::events(settings)),
        Command::Token(settings) => token::print(&settings),
        Command::Doctor(settings) => {
            let variables = unknown_variables();
            let examination = doctor::run(settings, variables);
            cli.threads.runtime()?.block_on(examination)
        }
    }
}

/// The settings of all commands, as `up` passes them to its children.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a setting is a limit for which 0 would refuse everything.
    fn is_limit(name: &str) -> bool {
        name.starts_with("max-")
            || [
                "request-timeout",
                "rate-limit",
                "ping-seconds",
                "topic-retention-ms",
            ]
            .contains(&name)
            || name.ends_with("timeout-seconds")
    }

    #[test]
    fn no_process_starts_with_a_limit_that_lets_nothing_through() {
        let mut tried = 0;
        for process in ["up", "accounts", "orders", "router"] {
            let command = Cli::command();
            let arguments = command
                .get_subcommands()
                .filter(|command| command.get_name() == process)
                .flat_map(clap::Command::get_arguments);
            for name in arguments
                .filter_map(clap::Arg::get_long)
                .filter(|name| is_limit(name))
            {
                let zero = if name == "request-timeout" { "0s" } else { "0" };
                let refused = Cli::try_parse_from(["tandem", process, &format!("--{name}"), zero]);
                let kind = refused.err().map(|error| error.kind());
                assert_eq!(
                    kind,
                    Some(clap::error::ErrorKind::ValueValidation),
                    "{process} --{name} {zero}"
                );
                tried += 1;
            }
        }
        assert!(tried > 40, "{tried}");
    }
}
