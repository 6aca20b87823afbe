//! The process of a service, from its port to its end: the port first, then its stores, then what runs beside requests.

use std::time::Duration;

use axum::Router;
use serde_json::json;

use crate::{
    kafka::ClientError,
    sealing::KeyError,
    shutdown::Shutdown,
    store::StoresError,
    telemetry::{TelemetryError, install_metrics},
    web::{
        BindError, HttpSettings, ServeError,
        actuator::{Actuator, Health, HealthReporter},
        bind, serve_while_opening,
    },
};

/// How long background tasks may take to end: the relay publishes what it holds meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_200);

/// What a service says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
}

/// Why a service did not start, or ended other than by shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The port cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The stores cannot be opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// There is no usable sealing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A Kafka property does not fit.
    #[error(transparent)]
    Kafka(#[from] ClientError),
    /// Metrics cannot be recorded.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The HTTP server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs a service on this port, 0 for a free one, until shutdown is requested. `open` opens its stores, starts what runs beside
/// requests and answers its routes, to which the actuator's are added; until it has, the actuator alone answers. It is given what
/// tells the state of the component `store` meanwhile, and the health that its own components are to tell of.
///
/// # Errors
/// When the port is taken, and what `open` fails with.
pub async fn run(
    identity: Identity,
    port: u16,
    http: &HttpSettings,
    shutdown: &Shutdown,
    open: impl AsyncFnOnce(HealthReporter, &Health) -> Result<Router, ServiceError>,
) -> Result<(), ServiceError> {
    let Identity { name, version } = identity;
    // The port first: a service that cannot be reached should touch nothing.
    let listener = bind(http.host, port, "--port").await?;
    let metrics = install_metrics(name, shutdown)?;
    let info = json!({"build": {"name": name, "version": version}});
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, "{name} is listening"),
        Err(error) => tracing::warn!(%error, "{name} is listening, at an unknown address"),
    }
    let routes = async |waiting: HealthReporter| {
        let health = Health::new(shutdown);
        let routes = open(waiting, &health).await?;
        let actuator = Actuator::new(health, metrics.clone(), info.clone());
        Ok(routes.merge(actuator.router()))
    };
    let served = serve_while_opening(
        listener,
        metrics.clone(),
        info.clone(),
        routes,
        http,
        shutdown,
    )
    .await;
    if let Err(error) = shutdown.drain(DRAIN_LIMIT).await {
        tracing::warn!(%error, "not everything ended in time; what was left is taken up at the next start");
    }
    served
}
