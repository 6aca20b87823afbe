//! The process of a service, from start to end: first the port, then the stores, then the background tasks.

use std::time::Duration;

use axum::Router;
use serde_json::json;
use tandem_front_door::graphql::{GraphSchema, SchemaError};

use crate::stores::StoresError;
use tandem_authentication::SettingsError as AuthenticationError;
use tandem_event_path::{log::LogError, sealing::KeyError, signing::SigningKeyError};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::{
    telemetry::{TelemetryError, install_metrics},
    web::{
        BindError, HttpSettings, Judge, ServeError,
        actuator::{Actuator, Health, HealthReporter},
        bind, legacy, serve_during_startup,
    },
};

/// The time limit for background tasks to end. The relay publishes its remaining events meanwhile.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_200);

/// The identity of a service.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Generates the schema for composition. Documents are validated against it.
    pub schema: fn() -> String,
}

/// Why a service did not start, or ended without a shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The service cannot listen on the port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The stores cannot be opened.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// There is no usable sealing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no usable signing key.
    #[error(transparent)]
    SigningKey(#[from] SigningKeyError),
    /// A Kafka property is invalid.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The schema is invalid.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// A setting of authentication is invalid.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// Metrics cannot be recorded.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The service must not continue with what it found.
    #[error("{0}")]
    Refused(String),
    /// The HTTP server failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs a service on this port (0 for a free one) until shutdown is requested. `open` opens its stores, starts the
/// background tasks and returns its routes; the actuator is added to them. Until `open` returns, only the actuator
/// answers. `open` gets a reporter for the component `store`, and the health that its own components register with.
///
/// # Errors
/// If a setting of authentication is invalid or the port is in use. Also the errors of `open`.
pub async fn run(
    identity: Identity,
    port: u16,
    http: &HttpSettings,
    shutdown: &Shutdown,
    open: impl AsyncFnOnce(HealthReporter, &Health) -> Result<Router, ServiceError>,
) -> Result<(), ServiceError> {
    let Identity {
        name,
        version,
        schema,
    } = identity;
    let judge = Judge {
        schema: Some(GraphSchema::from_sdl(&schema())?),
        verifier: http
            .authentication
            .verifier(http.host, shutdown.token())
            .await?,
        old_routes: legacy::of_service(name),
    };
    let authentication = if judge.verifier.is_some() {
        "by token"
    } else {
        "off"
    };
    // The port comes first: a service that cannot be reached should change nothing.
    let listener = bind(http.host, port, "--port").await?;
    let metrics = install_metrics(name, shutdown)?;
    let info = json!({"build": {"name": name, "version": version}});
    match listener.local_addr() {
        Ok(address) => tracing::info!(%address, authentication, "{name} is listening"),
        Err(error) => tracing::warn!(%error, "{name} is listening, at an unknown address"),
    }
    let routes = async |waiting: HealthReporter| {
        let health = Health::new(shutdown);
        let routes = open(waiting, &health).await?;
        let actuator = Actuator::new(health, metrics.clone(), info.clone());
        Ok(routes.merge(actuator.router()))
    };
    let served = serve_during_startup(
        listener,
        judge,
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
    match shutdown.failure() {
        Some(sentence) => Err(ServiceError::Refused(sentence.to_owned())),
        None => served,
    }
}
