//! Puts the HTTP server together: Tandem's own routes first, then the router's.
//!
//! This is what `hive_router::router_entrypoint` does, with three differences: the configuration is handed in instead of
//! read from the environment, the listener is already bound, and our routes stand before the router's.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use hive_router::background_tasks::BackgroundTasksManager;
use hive_router::ntex::{SharedCfg, web};
use hive_router::pipeline::long_lived_client_limit::LongLivedClientLimitService;
use hive_router::pipeline::request_identifiers::RequestIdentifiersService;
use hive_router::pipeline::request_summary::RequestSummaryService;
use hive_router::pipeline::response_compression::ResponseCompressionService;
use hive_router::plugins::plugins_service::PluginService;
use hive_router::telemetry::Telemetry;
use hive_router::{
    PluginRegistry, RouterPaths, build_http_service_config, configure_app_from_config,
    configure_ntex_app, init_rustls_crypto_provider, invoke_shutdown_hooks, tracing,
};

use super::actuator::{self, Actuator};
use super::codes::{Codes, with_the_contracts_codes};
use super::configuration::Configuration;
use super::multipart::with_prompt_parts;
use super::outgoing::Outgoing;
use super::rest::{self, Proxy};
use super::{graphiql, problem};

/// Serves on `listener` until a signal ends it.
pub(super) async fn serve(
    listener: TcpListener,
    configuration: Configuration,
) -> anyhow::Result<()> {
    let Configuration { router, services } = configuration;
    init_rustls_crypto_provider();
    let telemetry =
        Telemetry::init_global(router).context("the gateway's telemetry could not be set up")?;
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
        PluginRegistry::new().register::<Codes>(),
    )
    .await
    .map_err(|error| anyhow::anyhow!("the gateway could not be set up: {error}"))?;
    let callbacks = schema.callback_subscriptions.clone();

    let paths = RouterPaths::new(
        router.graphql_path().to_owned(),
        router.websocket_path().map(str::to_owned),
        None,
    );
    paths
        .detect_conflicts(&prometheus)
        .map_err(|error| anyhow::anyhow!("the router configuration is not valid: {error}"))?;
    let actuator = Actuator::new(
        prometheus.clone().map(|attached| attached.registry),
        schema.clone(),
    );
    let proxy = Proxy::new(services)?;

    let shared_of_app = Arc::clone(&shared);
    let mut server = web::HttpServer::new(async move || {
        let (paths, prometheus) = (paths.clone(), prometheus.clone());
        let (actuator, proxy) = (actuator.clone(), proxy.clone());
        let graphql_path = paths.graphql.clone();
        web::App::new()
            .middleware(LongLivedClientLimitService::new(router))
            .middleware(PluginService::new(
                paths.clone(),
                prometheus
                    .as_ref()
                    .map(|attached| attached.endpoint.clone()),
            ))
            .middleware(RequestSummaryService::new(&graphql_path))
            .middleware(RequestIdentifiersService)
            .middleware(Outgoing(with_the_contracts_codes))
            .middleware(Outgoing(with_prompt_parts))
            // Last, so that it is the last to touch a response.
            .middleware(ResponseCompressionService::new(router))
            .state(Arc::clone(&shared_of_app))
            .state(schema.clone())
            .state(shared_of_app.telemetry_context.clone())
            .state(callbacks.clone())
            .state(actuator)
            .state(proxy)
            .configure(|app| graphiql::routes(app, &graphql_path))
            .configure(rest::routes)
            .configure(actuator::routes)
            .configure(|app| configure_ntex_app(app, &paths, prometheus))
            .default_service(web::to(problem::no_such_route))
    });
    if let Some(workers) = router.workers() {
        server = server.workers(workers.get());
    }
    let address = listener.local_addr()?;
    let server = server
        .config(SharedCfg::new("gateway").add(build_http_service_config(router)))
        .shutdown_timeout(router.shutdown_timeout())
        .listen(listener)
        .with_context(|| format!("the gateway cannot listen on {address}"))?
        .run();
    tracing::info!(%address, "gateway is listening");

    let ended = server.await.context("the gateway's server failed");
    background.graceful_shutdown().await;
    telemetry.graceful_shutdown().await;
    invoke_shutdown_hooks(&shared).await;
    ended
}
