//! The orders service: everything put together, started, and stopped in order.

use std::sync::Arc;

use clap::Args;
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
    kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic},
    outbox::relay::{self, RelaySettings},
    rebuild::{RebuildAggregates, RebuildTrail, Target, fill_new_store},
    sealing::{Sealer, SealingSettings},
    service::{self, Identity, ServiceError},
    shutdown::Shutdown,
    store::settings::StoreSettings,
    web::{
        HttpSettings,
        actuator::{Affects, Health, HealthReporter},
        components, openapi,
    },
};

use crate::{
    audit::{self, AuditProjection},
    commands::OrderCommands,
    domain,
    erasure::{self, Forgetting, OrderReader},
    graphql::{Backing, schema},
    live::Live,
    replica::{self, Replica, projection::ReplicaProjection, rebuild::RebuildReplica},
    rest::{self, Rest},
    stores::Stores,
};

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

/// Runs the service until shutdown is requested. Kafka may be away: it is reached when it comes. So may MongoDB: until it is
/// there the actuator alone answers.
///
/// # Errors
/// When a setting does not fit, the port is taken or the store cannot be opened.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), ServiceError> {
    let identity = Identity {
        name: "orders",
        version: env!("CARGO_PKG_VERSION"),
    };
    let sealer = Sealer::from_settings(&settings.sealing)?;
    let open = async |waiting: HealthReporter, health: &Health| {
        let stores = Stores::open(&settings.store, &sealer, &waiting, &shutdown).await?;
        assemble(&settings, stores, &sealer, health, &shutdown)
    };
    service::run(identity, settings.port, &settings.http, &shutdown, open).await
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
    let Stores {
        own,
        replica: replica_store,
    } = stores;
    let kafka = Kafka::connect(settings.kafka.clone(), topics, shutdown)?;
    let keys = KeyRing::start(&kafka, erasure::KEY_TOPIC, Role::Reader, shutdown);
    let opener = Opener::new(Arc::new(keys), sealer.clone());
    let relay = relay::start(
        Arc::clone(&own.aggregates) as _,
        &kafka,
        domain::event::TOPIC,
        &settings.relay,
        shutdown,
    )?;
    let replica = Replica::new(replica_store);
    let replica_projection = Arc::new(ReplicaProjection::new(
        replica.clone(),
        opener.clone(),
        Forgetting::new(Arc::clone(&own.aggregates)),
    ));
    let audit_projection = Arc::new(AuditProjection::new(Arc::clone(&own.changes)));
    let replica_status = run_projection(
        Arc::clone(&replica_projection),
        &own.identity,
        replica::event::TOPIC,
        replica::event::DEAD_LETTER_TOPIC,
        &kafka,
        Arc::clone(&own.dead_letters),
        shutdown,
    )?;
    let audit_status = run_projection(
        Arc::clone(&audit_projection),
        &own.identity,
        domain::event::TOPIC,
        audit::DEAD_LETTER_TOPIC,
        &kafka,
        Arc::clone(&own.dead_letters),
        shutdown,
    )?;
    let live = Live::start(
        &kafka,
        Arc::clone(&own.changes),
        replica.clone(),
        opener.clone(),
        shutdown,
    );
    forget_old_keys(Arc::clone(&own.aggregates), shutdown);

    let office = DeadLetterOffice::open(
        Arc::clone(&own.dead_letters),
        vec![
            Arc::new(RetryProjection(Arc::clone(&replica_projection))),
            Arc::new(RetryProjection(Arc::clone(&audit_projection))),
        ],
        &kafka,
    );
    let targets: Vec<Arc<dyn Target>> = vec![
        Arc::new(RebuildAggregates::new(
            Arc::clone(&own.aggregates),
            domain::event::TOPIC,
            OrderReader::new(opener.clone()),
        )),
        Arc::new(RebuildTrail::new(
            audit_projection,
            Arc::clone(&own.changes),
            domain::event::TOPIC,
        )),
        Arc::new(RebuildReplica::new(
            replica.clone(),
            opener,
            Forgetting::new(Arc::clone(&own.aggregates)),
        )),
    ];
    let gate = Gate::closed();
    fill_new_store(
        Arc::clone(&own.registry),
        targets.clone(),
        kafka.clone(),
        gate.clone(),
        shutdown,
    );
    let rebuilder = Rebuilder::new(targets, kafka.clone(), shutdown.clone());

    components::store(health, &own.aggregates);
    components::filling(health, &gate);
    components::outbox(health, &relay);
    components::kafka(health, &kafka);
    let most = i64::try_from(settings.replica_unready_lag).unwrap_or(i64::MAX);
    components::projection(health, "replica", Affects::Readiness, replica_status, most);
    components::projection(health, "audit", Affects::HealthOnly, audit_status, i64::MAX);
    let commands = OrderCommands::new(
        CommandHandler::new(Arc::clone(&own.aggregates), Some(relay)).behind(gate),
        replica.clone(),
        sealer.clone(),
    );
    let backing = Backing {
        commands,
        replica: replica.clone(),
        changes: own.changes,
        live,
    };
    let rest = Rest {
        replica,
        orders: own.aggregates,
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
