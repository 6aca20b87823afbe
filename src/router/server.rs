//! Builds the HTTP server: Tandem's own routes first, then the router's.
//!
//! This does what `hive_router::router_entrypoint` does, with four differences. The configuration is passed in instead
//! of read from the environment. The listener is already bound. Our routes come before the router's. The front door
//! owns the connections; the router gets judged requests as values (`in_process.rs`).

use std::convert::Infallible;
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hive_router::background_tasks::BackgroundTasksManager;
use hive_router::config::HiveRouterConfig;
use hive_router::ntex::rt::Arbiter;
use hive_router::ntex::web::WebAppConfig;
use hive_router::ntex::{SharedCfg, web};
use hive_router::pipeline::request_identifiers::RequestIdentifiersService;
use hive_router::pipeline::request_summary::RequestSummaryService;
use hive_router::pipeline::response_compression::ResponseCompressionService;
use hive_router::plugins::plugins_service::PluginService;
use hive_router::telemetry::{PrometheusAttached, Telemetry};
use hive_router::{
    PluginRegistry, RouterPaths, RouterSharedState, SchemaState, build_http_service_config,
    configure_app_from_config, configure_ntex_app, init_rustls_crypto_provider,
    invoke_shutdown_hooks, tracing,
};

use super::actuator::{self, Actuator};
use super::codes::{Codes, with_the_contracts_codes};
use super::configuration::Configuration;
use super::in_process::InProcess;
use super::judged;
use super::live::{self, Kills};
use super::methods::Methods;
use super::metrics::{self, Recorded, WithMetrics};
use super::operations::{self, Operators};
use super::outgoing::Outgoing;
use super::resilience::{self, Resilience};
use super::rest::{self, Proxy};
use super::sampling::Sampler;
use super::system::System;
use super::{pages, problem};
use tandem_front_door::{FrontDoor, Stop};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long open requests may take to end at shutdown. Subscriptions are told to end; clients resume with `after`.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// Serves on `listener` until a signal ends it.
#[expect(clippy::disallowed_methods, reason = "connections are real")]
pub(super) async fn serve(
    listener: TcpListener,
    configuration: Configuration,
) -> anyhow::Result<()> {
    let Configuration {
        router,
        services,
        door,
        authentication,
        kills,
        operator_token,
        tls,
        sampling,
    } = configuration;
    let address = listener.local_addr()?;
    let ended = CancellationToken::new();
    let _ended = ended.clone().drop_guard();
    let verifier = authentication
        .verifier(address.ip(), ended)
        .await
        .context("the gateway does not start")?;
    let is_on_loopback = address.ip().is_loopback();
    let kills = kills
        .filter(|_| is_on_loopback && verifier.is_none())
        .map(Kills::of_up)
        .unwrap_or_default();
    let operators = match &verifier {
        Some(_) => Operators::ByToken,
        None => {
            let token = operator_token.filter(|_| is_on_loopback);
            Operators::without_authentication(token.as_ref())
        }
    };
    let door = door.verifying(verifier, Duration::ZERO);
    init_rustls_crypto_provider();
    let telemetry =
        Telemetry::init_global(router).context("the gateway's telemetry could not be set up")?;
    if telemetry.traces_provider.is_some() {
        tandem_runtime::span::record();
    }
    for warning in router.from_env_warnings() {
        tracing::warn!("{warning}");
    }
    let prometheus = telemetry
        .prometheus
        .as_ref()
        .and_then(|runtime| runtime.to_attached());

    let mut background = BackgroundTasksManager::new();
    let (shared, schema) = configure_app_from_config(
        router,
        telemetry.context.clone(),
        &mut background,
        PluginRegistry::new()
            .register::<Codes>()
            .register::<Resilience>(),
    )
    .await
    .map_err(|error| anyhow::anyhow!("the gateway could not be set up: {error}"))?;
    let paths = RouterPaths::new(
        router.graphql_path().to_owned(),
        router.websocket_path().map(str::to_owned),
        None,
    );
    paths
        .detect_conflicts(&prometheus)
        .map_err(|error| anyhow::anyhow!("the router configuration is not valid: {error}"))?;
    let recorded = metrics::record().context("the gateway's metrics cannot be recorded")?;
    resilience::show_counters(["accounts", "orders"]);
    let actuator = Actuator::new(
        prometheus.clone().map(|attached| attached.registry),
        recorded.clone(),
        schema.clone(),
    );
    let proxy = Proxy::new(&services, &tls)?;
    let system = System::new(services, &tls)?;
    let application = Application {
        router,
        shared: Arc::clone(&shared),
        schema,
        paths,
        prometheus,
        actuator,
        proxy,
        system,
        kills,
        operators,
        sampler: sampling.map(Sampler::new),
    };

    listener
        .set_nonblocking(true)
        .with_context(|| format!("the gateway cannot listen on {address}"))?;
    let (stopper, stop) = tandem_front_door::stop();
    let (failed, mut failures) = mpsc::unbounded_channel();
    let (running, mut all_ended) = mpsc::channel::<Infallible>(1);
    let threads = router.workers().map_or_else(available, NonZeroUsize::get);
    for _ in 0..threads {
        let thread = Thread {
            application: application.clone(),
            door: door.clone(),
            recorded: recorded.clone(),
            listener: listener.try_clone()?,
            stop: stop.clone(),
            running: running.clone(),
        };
        let failed = failed.clone();
        // The values that a thread serves with are made on it and stay there.
        Arbiter::new().handle().spawn(async move {
            hive_router::ntex::rt::spawn(async move {
                if let Err(error) = thread.serve().await {
                    let _ = failed.send(error);
                }
            });
        });
    }
    drop((listener, running));
    tracing::info!(%address, "gateway is listening");

    let ended = tokio::select! {
        () = signalled() => Ok(()),
        Some(error) = failures.recv() => Err(error),
        never = metrics::keep_small(&recorded) => match never {},
    };
    stopper.request();
    // Each thread ends within its drain limit.
    let _ = tokio::time::timeout(2 * DRAIN_LIMIT, all_ended.recv()).await;
    background.graceful_shutdown().await;
    telemetry.graceful_shutdown().await;
    invoke_shutdown_hooks(&shared).await;
    ended
}

/// Waits for SIGTERM or SIGINT.
async fn signalled() {
    let signals = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match signals {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        (Err(error), _) | (_, Err(error)) => {
            tracing::error!(%error, "signals cannot be heard: the gateway ends by SIGKILL alone");
            std::future::pending().await
        }
    }
}

fn available() -> usize {
    std::thread::available_parallelism().map_or(2, NonZeroUsize::get)
}

/// The parts of the router's application. Each thread builds its own from them.
#[derive(Clone)]
struct Application {
    router: &'static HiveRouterConfig,
    shared: Arc<RouterSharedState>,
    schema: Arc<SchemaState>,
    paths: RouterPaths,
    prometheus: Option<PrometheusAttached>,
    actuator: Actuator,
    proxy: Proxy,
    system: System,
    kills: Kills,
    operators: Operators,
    sampler: Option<Sampler>,
}

impl Application {
    async fn in_process(self) -> anyhow::Result<InProcess> {
        let Self {
            router,
            shared,
            schema,
            paths,
            prometheus,
            actuator,
            proxy,
            system,
            kills,
            operators,
            sampler,
        } = self;
        let graphql_path = paths.graphql.clone();
        let callbacks = schema.callback_subscriptions.clone();
        let application = web::App::new()
            .middleware(PluginService::new(
                paths.clone(),
                prometheus
                    .as_ref()
                    .map(|attached| attached.endpoint.clone()),
            ))
            .middleware(RequestSummaryService::new(&graphql_path))
            .middleware(RequestIdentifiersService)
            .middleware(Outgoing(with_the_contracts_codes))
            .middleware(ResponseCompressionService::new(router))
            // Added last, so that it sees a request first and a response last.
            .middleware(Methods {
                graphql_path: graphql_path.clone(),
            })
            .state(Arc::clone(&shared))
            .state(schema)
            .state(shared.telemetry_context.clone())
            .state(callbacks)
            .state(actuator)
            .state(proxy)
            .state(system)
            .state(kills)
            .state(operators)
            .configure(|app| pages::routes(app, &graphql_path))
            .configure(live::routes)
            .configure(operations::routes)
            .configure(rest::routes)
            .configure(actuator::routes)
            .configure(|app| judged::routes(app, &graphql_path, router.websocket_path()))
            .configure(|app| configure_ntex_app(app, &paths, prometheus))
            .configure(actuator::only_read)
            .default_service(web::to(problem::no_such_route));
        let settings = SharedCfg::new("gateway")
            .add(build_http_service_config(router))
            .add(WebAppConfig::new());
        InProcess::new(application, settings.into(), sampler).await
    }
}

/// One thread of the gateway.
struct Thread {
    application: Application,
    door: FrontDoor,
    recorded: Recorded,
    listener: TcpListener,
    stop: Stop,
    /// Dropped when the thread ends, which tells the receiver.
    running: mpsc::Sender<Infallible>,
}

impl Thread {
    async fn serve(self) -> anyhow::Result<()> {
        let _running = self.running;
        let listener = tokio::net::TcpListener::from_std(self.listener)
            .context("the gateway's port cannot be served")?;
        let router = WithMetrics::new(self.application.in_process().await?, self.recorded);
        self.door
            .serve(listener, router, self.stop, DRAIN_LIMIT)
            .await
            .context("the gateway's server failed")
    }
}
