//! The gateway: Hive Router as a library behind the front door. The start page, GraphiQL, the operator's page, the REST
//! routes and the actuator are on the same port.
//!
//! * `server`, `configuration`, `in_process`: the router, its configuration, and how the front door calls it.
//! * `judged`: the router executes only what the front door has judged.
//! * `resilience`, `timed_out`, `failed_parts`, `codes`: services that fail, and the errors that a client then gets.
//! * `rest`, `target`, `outgoing`: routes that are passed on to the services.
//! * `operations`, `live`, `pages`, `system`: the pages.
//! * `traces`, `sampling`, `recorded_trace`, `metrics`, `actuator`, `log_filter`: what the gateway reports about
//!   itself.

mod actuator;
mod codes;
mod configuration;
mod failed_parts;
mod in_process;
mod judged;
mod live;
mod log_filter;
mod methods;
mod metrics;
mod operations;
mod outgoing;
mod pages;
mod problem;
mod recorded_trace;
mod resilience;
mod rest;
mod sampling;
mod server;
mod system;
mod target;
mod timed_out;
mod traces;

use std::net::TcpListener;
use std::path::PathBuf;

use anyhow::Context;
use hive_router::ntex::rt::{DefaultRuntime, System};
use secrecy::SecretString;
use tandem_authentication::AuthenticationSettings;
use tandem_front_door::{FrontDoorSettings, TlsSettings};
use tandem_service::telemetry::LogSettings;
use tandem_service::web::legacy::Sunset;

/// Settings of `tandem router`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RouterSettings {
    /// Port of the gateway; 0 takes a free one.
    #[arg(long, env = "TANDEM_GATEWAY_PORT", default_value_t = 9090)]
    pub(crate) port: u16,

    /// Address to listen on.
    #[arg(long, env = "TANDEM_GATEWAY_HOST", default_value = "127.0.0.1")]
    pub(crate) host: String,

    /// Base URL of the accounts service.
    #[arg(
        long,
        env = "TANDEM_ACCOUNTS_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) accounts_url: String,

    /// Base URL of the orders service.
    #[arg(
        long,
        env = "TANDEM_ORDERS_URL",
        default_value = "http://127.0.0.1:8085"
    )]
    pub(crate) orders_url: String,

    /// Supergraph to serve instead of the built-in schema/supergraph.graphql.
    #[arg(long, env = "TANDEM_SUPERGRAPH", value_name = "FILE")]
    pub(crate) supergraph: Option<PathBuf>,

    /// Hive Router configuration instead of the built-in router-config/hive-router.yaml.
    #[arg(long, env = "TANDEM_ROUTER_CONFIG", value_name = "FILE")]
    pub(crate) router_config: Option<PathBuf>,

    /// Folder for what the gateway writes: the built-in supergraph, as `router/supergraph.graphql`.
    #[arg(
        long,
        env = "TANDEM_DATA_DIR",
        value_name = "DIR",
        default_value = ".tandem"
    )]
    pub(crate) data_dir: PathBuf,

    /// Manifest of trusted documents (`tandem documents manifest`): with it nothing else is carried out.
    #[arg(long, env = "TANDEM_TRUSTED_DOCUMENTS", value_name = "FILE")]
    pub(crate) trusted_documents: Option<PathBuf>,

    /// The data directory of the `tandem up` that started this: the live page may kill its processes. On loopback and without
    /// authentication alone.
    #[arg(long, value_name = "DIR", hide = true)]
    pub(crate) kills: Option<PathBuf>,

    /// What shows the services that an operator asks: `up` gives it where everybody who uses this machine is one. On loopback and without
    /// authentication alone. Only by environment, so that it shows in no process list.
    #[arg(
        long,
        env = "TANDEM_OPERATOR_TOKEN",
        value_name = "TOKEN",
        hide = true,
        hide_env_values = true
    )]
    pub(crate) operator_token: Option<SecretString>,

    /// How long a query or a mutation may take, from its request to its answer, all fields of a mutation together, in seconds.
    #[arg(
        long,
        env = "TANDEM_OPERATION_TIMEOUT_SECONDS",
        value_name = "SECONDS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    pub(crate) operation_timeout_seconds: u64,

    /// When the REST routes of older clients will be gone: a day such as 2027-06-30, or a moment. What the gateway answers by itself says it too
    /// (`Sunset`).
    #[arg(long, env = "TANDEM_REST_SUNSET", value_name = "DATE", value_parser = Sunset::parse)]
    pub(crate) rest_sunset: Option<Sunset>,

    #[command(flatten)]
    pub(crate) front_door: FrontDoorSettings,

    #[command(flatten)]
    pub(crate) tls: TlsSettings,

    #[command(flatten)]
    pub(crate) authentication: AuthenticationSettings,
}

/// Runs the gateway until SIGTERM or SIGINT. Open requests get one second to end.
///
/// Starts its own runtime and installs the process's tracing subscriber as the router configuration says. Values in
/// `log` that differ from the defaults of all processes take precedence.
///
/// # Errors
/// When a setting does not fit, the port is taken, or the supergraph or the router configuration is not valid.
pub(crate) fn run(settings: RouterSettings, log: &LogSettings) -> anyhow::Result<()> {
    let address = (settings.host.as_str(), settings.port);
    let listener = TcpListener::bind(address).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            anyhow::anyhow!(
                "the gateway's port {} on {} is taken by another process: stop it or choose another one with --port",
                settings.port,
                settings.host
            )
        } else {
            anyhow::anyhow!("the gateway cannot listen on {}:{}: {error}", settings.host, settings.port)
        }
    })?;
    settings
        .authentication
        .check(listener.local_addr()?.ip())
        .context("the gateway does not start")?;
    let configuration = configuration::load(&settings, log)?;

    // The router's runtime must not start inside another one. With a thread of its own, this function can be called
    // anywhere.
    let gateway = std::thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(move || {
            System::build()
                .name("gateway")
                // Without handlers, a fault ends the process. A handler that returned would run into the same fault for
                // ever.
                .disable_signals()
                .build(DefaultRuntime)
                .block_on(server::serve(listener, configuration))
        })
        .context("the gateway's thread could not be started")?;
    gateway
        .join()
        .map_err(|_| anyhow::anyhow!("the gateway ended with a panic"))?
}
