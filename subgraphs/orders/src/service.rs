//! The orders service: everything put together, started, and stopped in order.

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tandem_kit::{
    admin::{
        AdminToken,
        dead_letters::{DeadLetterOffice, RetryProjection},
        guarded,
        rebuild::Rebuilder,
    },
    commands::{CommandHandler, Gate, forget_old_keys},
    consumer::run_projection,
    data_keys::{KeyRing, Opener, Role},
    graphql::GraphQlEndpoint,
    kafka::{ClientError, connection::Kafka, settings::KafkaSettings, topics::Topic},
    outbox::relay::{self, RelaySettings},
    rebuild::{RebuildAggregates, RebuildTrail, Target, fill_new_store},
    sealing::{KeyError, Sealer, SealingSettings},
    shutdown::Shutdown,
    store::{AggregateStore, settings::StoreSettings},
    telemetry::{TelemetryError, install_metrics},
    web::{
        BindError, HttpSettings, ServeError,
        actuator::{Actuator, Affects, Health, HealthReporter},
        bind, components, openapi, serve_while_opening,
    },
};

use crate::{
    audit::{self, AuditProjection},
    commands::OrderCommands,
    domain::{self, Order},
    erasure::{self, Forgetting, OrderReader},
    graphql::{Backing, schema},
    live::Live,
    replica::{self, Replica, projection::ReplicaProjection, rebuild::RebuildReplica},
    rest::{self, Rest},
    stores::{Stores, StoresError},
};

/// How long background tasks may take to end.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_200);

/// Settings of the orders service.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "TANDEM_ORDERS_PORT", default_value_t = 8085)]
    pub port: u16,

    /// Messages of `accounts.customer.change` that the replica may be behind before the service is not ready.
    #[arg(long, env = "TANDEM_REPLICA_UNREADY_LAG", default_value_t = 10_000)]
    pub replica_unready_lag: u64,

    /// How requests are served.
    #[command(flatten)]
    pub http: HttpSettings,

    /// Where data is kept.
    #[command(flatten)]
    pub store: StoreSettings,

    /// How Kafka is reached.
    #[command(flatten)]
    pub kafka: KafkaSettings,

    /// How pending events are published.
    #[command(flatten)]
    pub relay: RelaySettings,

    /// The key that data keys are wrapped with, that the embedded store is sealed with and that an operator's requests are
    /// known by: the same as accounts'.
    #[command(flatten)]
    pub sealing: SealingSettings,
}

/// Why the service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The store.
    #[error(transparent)]
    Stores(#[from] StoresError),
    /// A setting of Kafka.
    #[error(transparent)]
    Kafka(#[from] ClientError),
    /// There is no usable sealing key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The port.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The HTTP server.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the service until shutdown is requested. Kafka may be away: it is reached when it comes. So may MongoDB: until it is
/// there the actuator alone answers.
///
/// # Errors
/// See [`ServiceError`].
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), ServiceError> {
    let sealer = Sealer::from_settings(&settings.sealing)?;
    let metrics = install_metrics("orders", &shutdown)?;
    // The port first: a service that cannot be reached should touch nothing.
    let listener = bind(settings.http.host, settings.port, "--port").await?;
    let port = listener
        .local_addr()
        .map_or(settings.port, |addr| addr.port());
    tracing::info!(port, "orders listens");
    let info = json!({"build": {"name": "orders", "version": env!("CARGO_PKG_VERSION")}});
    let open = async |waiting: HealthReporter| {
        let stores = Stores::open(&settings.store, &sealer, &waiting, &shutdown).await?;
        let health = Health::new(&shutdown);
        let routes = assemble(&settings, stores, &sealer, &health, &shutdown)?;
        let actuator = Actuator::new(health, metrics.clone(), info.clone());
        Ok(routes.merge(actuator.router()))
    };
    let served = serve_while_opening(
        listener,
        metrics.clone(),
        info.clone(),
        open,
        &settings.http,
        &shutdown,
    )
    .await;
    if let Err(late) = shutdown.drain(DRAIN_LIMIT).await {
        tracing::warn!(%late, "orders ends with work undone; it is taken up at the next start");
    }
    served
}

/// Starts everything that runs beside requests, and puts the routes together.
fn assemble(
    settings: &Settings,
    stores: Stores,
    sealer: &Sealer,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<axum::Router, ServiceError> {
    let topics = vec![
        Topic::log(domain::event::TOPIC),
        Topic::log(audit::DEAD_LETTER_TOPIC),
        Topic::log(replica::event::TOPIC),
        Topic::log(replica::event::DEAD_LETTER_TOPIC),
        Topic::compacted(erasure::KEY_TOPIC),
    ];
    let kafka = Kafka::connect(settings.kafka.clone(), topics, shutdown)?;
    let keys = KeyRing::start(&kafka, erasure::KEY_TOPIC, Role::Reader, shutdown);
    let opener = Opener::new(Arc::new(keys), sealer.clone());
    let relay = relay::start(
        as_outbox(&stores.orders),
        &kafka,
        domain::event::TOPIC,
        &settings.relay,
        shutdown,
    )?;
    let replica = Replica::new(Arc::clone(&stores.replica));
    let replica_projection = Arc::new(ReplicaProjection::new(
        replica.clone(),
        opener.clone(),
        Forgetting::new(Arc::clone(&stores.orders)),
    ));
    let audit_projection = Arc::new(AuditProjection::new(Arc::clone(&stores.changes)));
    let replica_status = run_projection(
        Arc::clone(&replica_projection),
        &stores.identity,
        replica::event::TOPIC,
        replica::event::DEAD_LETTER_TOPIC,
        &kafka,
        Arc::clone(&stores.dead_letters),
        shutdown,
    )?;
    let audit_status = run_projection(
        Arc::clone(&audit_projection),
        &stores.identity,
        domain::event::TOPIC,
        audit::DEAD_LETTER_TOPIC,
        &kafka,
        Arc::clone(&stores.dead_letters),
        shutdown,
    )?;
    let live = Live::start(
        &kafka,
        Arc::clone(&stores.changes),
        replica.clone(),
        opener.clone(),
        shutdown,
    );
    forget_old_keys(Arc::clone(&stores.orders), shutdown);

    let office = DeadLetterOffice::open(
        Arc::clone(&stores.dead_letters),
        vec![
            Arc::new(RetryProjection(Arc::clone(&replica_projection))),
            Arc::new(RetryProjection(Arc::clone(&audit_projection))),
        ],
        &kafka,
    );
    let targets: Vec<Arc<dyn Target>> = vec![
        Arc::new(RebuildAggregates::new(
            Arc::clone(&stores.orders),
            domain::event::TOPIC,
            OrderReader::new(opener.clone()),
        )),
        Arc::new(RebuildTrail::new(
            audit_projection,
            Arc::clone(&stores.changes),
            domain::event::TOPIC,
        )),
        Arc::new(RebuildReplica::new(
            replica.clone(),
            opener,
            Forgetting::new(Arc::clone(&stores.orders)),
        )),
    ];
    let gate = Gate::closed();
    fill_new_store(
        Arc::clone(&stores.registry),
        targets.clone(),
        kafka.clone(),
        gate.clone(),
        shutdown,
    );
    let rebuilder = Rebuilder::new(targets, kafka.clone(), shutdown.clone());

    components::store(health, &stores.orders);
    components::filling(health, &gate);
    components::outbox(health, &relay);
    components::kafka(health, &kafka);
    let most = i64::try_from(settings.replica_unready_lag).unwrap_or(i64::MAX);
    components::projection(health, "replica", Affects::Readiness, replica_status, most);
    components::projection(health, "audit", Affects::HealthOnly, audit_status, i64::MAX);
    let commands = OrderCommands::new(
        CommandHandler::new(Arc::clone(&stores.orders), Some(relay)).behind(gate),
        replica.clone(),
        sealer.clone(),
    );
    let backing = Backing {
        commands,
        replica: replica.clone(),
        changes: stores.changes,
        live,
    };
    let rest = Rest {
        replica,
        orders: stores.orders,
    };
    let operator = office.routes().merge(rebuilder.routes());
    Ok(graphql_routes(backing, shutdown)
        .merge(rest::router(rest))
        .merge(openapi::router(rest::description()))
        .merge(guarded(operator, AdminToken::of(sealer))))
}

fn graphql_routes(backing: Backing, shutdown: &Shutdown) -> axum::Router {
    let for_loaders = backing.clone();
    GraphQlEndpoint::new(schema(backing), shutdown.clone())
        .with_operation_data(move |data| {
            data.insert(for_loaders.loaders());
        })
        .router()
}

fn as_outbox(orders: &Arc<dyn AggregateStore<Order>>) -> Arc<dyn tandem_kit::outbox::Outbox> {
    Arc::clone(orders) as Arc<dyn tandem_kit::outbox::Outbox>
}
