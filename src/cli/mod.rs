//! The command line: which process this is to be, and how a wrong setting is told.

mod error;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, Parser, Subcommand};
use tandem_kit::shutdown::{Shutdown, ShutdownSettings};

use crate::{broker, parent, router};

/// Tandem: customer accounts and orders as two services, Kafka between them, one GraphQL gateway in front.
///
/// Without a command it does what `tandem up` does.
#[derive(Debug, Parser)]
#[command(name = "tandem", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the embedded broker, which speaks the Kafka protocol.
    Broker(Service<broker::BrokerSettings>),
    /// Run the gateway, which answers one GraphQL API from both services.
    Router(Service<router::RouterSettings>),
}

/// What every process that `up` starts can be told, beside its own settings.
#[derive(Debug, Args)]
struct Service<S: Args> {
    #[command(flatten)]
    settings: S,

    #[command(flatten)]
    shutdown: ShutdownSettings,
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse_from(arguments(std::env::args_os())) {
        Ok(cli) => cli,
        Err(problem) => return error::report_usage(&problem),
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => error::report(&problem),
    }
}

/// `tandem` alone means `tandem up`.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut given: Vec<OsString> = given.collect();
    if given.len() == 1 {
        given.push("up".into());
    }
    given
}

fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Broker(service) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_env_filter(tracing_subscriber::EnvFilter::new("warn,tandem=info"))
                .init();
            runtime()?.block_on(async {
                let shutdown = Shutdown::install(&service.shutdown)?;
                Ok(broker::run(service.settings, shutdown.token()).await?)
            })
        }
        Command::Router(service) => {
            if service.shutdown.exit_with_parent {
                parent::end_with_parent()?;
            }
            router::run(service.settings)
        }
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}
