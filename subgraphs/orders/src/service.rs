//! The process of orders. It opens the stores, puts relay, projections, live feeds and routes together, and stops them
//! in order.

use std::sync::Arc;

use clap::Args;
use tandem_assembly::{
    admin::{
        self, AdminToken,
        dead_letters::{DeadLetterOperations, RetryProjection},
        guarded,
        keys::KeyOperations,
        log::LogOperations,
        rebuild::Rebuilder,
        rotation::KeyRotation,
    },
    components,
    service::{self, Identity, ServiceError},
    store_settings::StoreSettings,
};
use tandem_event_path::{
    commands::{CommandHandler, Gate, forget_old_keys},
    data_keys::{KeyMemory, KeyRing, Opener, RingPorts, Role},
    log::{Log, LogError},
    log_memory::LogWatch,
    log_restore::LogRestore,
    outbox::relay::{self, RelaySettings},
    projection::run_projection,
    rebuild::{RebuildAggregates, RebuildTrail, Target, fill_new_store},
    refused_records,
    sealing::{Sealer, SealingSettings},
    signing::{Signatures, SigningKey, SigningSettings, Topics},
    store::ReadBarrier,
    system::{self, Claimant, SystemLog},
    waiting::{Waiting, WithoutWaiting},
};
use tandem_log_kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::shutdown::Shutdown;
use tandem_service::{
    graphql::GraphQlEndpoint,
    web::{
        HttpSettings,
        actuator::{Health, HealthReporter},
        consistency::{Shows, waiting},
        openapi, pages,
    },
};
use tandem_web::Graph;

use crate::{
    audit::{self, AuditProjection},
    commands::OrderCommands,
    consistency,
    domain::{self, Order},
    erasure::{self, Forgetting, OrderEncoding, OrderReader},
    graphql::{Backing, schema},
    live::{Live, Sources},
    replica::{
        self, Replica, keys::ReplicaKeys, progress::Progress, projection::ReplicaProjection,
        rebuild::RebuildReplica,
    },
    rest::{self, Rest},
    rotation::{RewrapOrders, RewrapReplica},
    stores::Stores,
};

/// The topics whose records are signed, each with the service that signs them.
const SIGNED: Topics = &[
    (replica::event::TOPIC, "accounts"),
    (erasure::KEY_TOPIC, "accounts"),
    (domain::event::TOPIC, "orders"),
];

/// Settings of the orders service.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "TANDEM_ORDERS_PORT", default_value_t = 8085)]
    pub port: u16,

    /// Messages of `accounts.customer.change` that the replica may be behind before the service is degraded.
    #[arg(long, env = "TANDEM_REPLICA_LATE_LAG", default_value_t = 10_000)]
    pub replica_late_lag: u64,

    /// Messages of `accounts.customer.change` that the replica may be behind before the service is not ready. Not set: any number,
    /// because all instances share the replica.
    #[arg(long, env = "TANDEM_REPLICA_UNREADY_LAG")]
    pub replica_unready_lag: Option<u64>,

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

    /// The key that orders signs its events with, and whose signatures it trusts.
    #[command(flatten)]
    pub signing: SigningSettings,
}

/// Runs the service until shutdown is requested. Kafka may be away: the service connects when it is back. MongoDB may
/// be away too: until it answers, only the actuator does.
///
/// # Errors
/// When a setting does not fit, the port is taken or the store cannot be opened.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), ServiceError> {
    let identity = Identity {
        name: "orders",
        version: env!("CARGO_PKG_VERSION"),
        schema: crate::graphql::sdl,
    };
    settings.kafka.check().map_err(LogError::from)?;
    let sealer = Sealer::from_settings(&settings.sealing)?;
    let signing_key = SigningKey::from_settings(
        &settings.signing,
        identity.name,
        &settings.store.data_dir,
        shutdown.clock(),
    )?;
    let signatures = Signatures::new(identity.name, signing_key, SIGNED, &settings.signing);
    let open = async |waiting: HealthReporter, health: &Health| {
        let stores = Stores::open(&settings.store, &sealer, &waiting, &shutdown).await?;
        assemble(&settings, stores, &sealer, &signatures, health, &shutdown)
    };
    service::run(identity, settings.port, &settings.http, &shutdown, open).await
}

/// Starts everything that runs in the background, and puts the routes together.
fn assemble(
    settings: &Settings,
    stores: Stores,
    sealer: &Sealer,
    signatures: &Signatures,
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
    let kafka: Arc<dyn Log> = Arc::new(Kafka::connect(settings.kafka.clone(), topics, shutdown)?);
    let stored = Arc::new(ReplicaKeys(Arc::clone(&replica_store)));
    let ports = RingPorts {
        signatures: signatures.clone(),
        letters: Arc::clone(&own.dead_letters),
        memory: Some(KeyMemory {
            registry: Arc::clone(&own.registry),
            takes_over: settings.kafka.claim_topics,
        }),
    };
    let keys = KeyRing::start_signed(
        &kafka,
        erasure::KEY_TOPIC,
        Role::Reader,
        stored,
        ports,
        shutdown,
    );
    for topic in [replica::event::TOPIC, domain::event::TOPIC] {
        refused_records::show(topic);
    }
    let system_log =
        SystemLog::new(kafka, domain::event::TOPIC, shutdown).signed(signatures.clone());
    let claimant = Claimant {
        service: "orders",
        role: Role::Reader,
        projection: audit::NAME,
        topics: vec![domain::event::TOPIC, replica::event::TOPIC],
        store: own.identity.clone(),
        sealer: sealer.clone(),
        registry: Arc::clone(&own.registry),
        takes_over: settings.kafka.claim_topics,
    };
    system::claim(claimant, &system_log, &keys, shutdown);
    let log: Arc<dyn Log> = Arc::new(system_log);
    let opener = Opener::new(Arc::new(keys.clone()), sealer.clone());
    let waiting_customers = Waiting::of(
        replica::projection::NAME,
        Arc::clone(&own.dead_letters),
        shutdown.clock(),
    );
    let waiting_orders = Waiting::of(
        Order::COLLECTION,
        Arc::clone(&own.dead_letters),
        shutdown.clock(),
    );
    let relay = relay::start(
        Arc::clone(&own.aggregates) as _,
        &log,
        domain::event::TOPIC,
        &settings.relay,
        shutdown,
    )?;
    let rotation = KeyRotation::new(
        vec![
            Arc::new(RewrapReplica {
                store: Arc::clone(&replica_store),
                sealer: sealer.clone(),
            }),
            Arc::new(RewrapOrders {
                orders: Arc::clone(&own.aggregates),
                sealer: sealer.clone(),
            }),
        ],
        Arc::clone(&own.registry),
        sealer.clone(),
        None,
        shutdown.clone(),
    );
    rotation.resume();
    let replica = Replica::new(replica_store).with_clock(shutdown.clock().clone());
    let replica_projection = Arc::new(ReplicaProjection::new(
        replica.clone(),
        opener.clone(),
        Forgetting::new(Arc::clone(&own.aggregates)),
        waiting_customers.clone(),
    ));
    let audit_projection = Arc::new(AuditProjection::new(
        Arc::clone(&own.changes),
        replica.clone(),
        Forgetting::new(Arc::clone(&own.aggregates)),
    ));
    let replica_status = run_projection(
        Arc::clone(&replica_projection),
        &own.identity,
        replica::event::TOPIC,
        &log,
        Arc::clone(&own.dead_letters),
        shutdown,
    )?;
    let audit_status = run_projection(
        Arc::clone(&audit_projection),
        &own.identity,
        domain::event::TOPIC,
        &log,
        Arc::clone(&own.dead_letters),
        shutdown,
    )?;
    let sources = Sources {
        orders: Arc::clone(&own.aggregates),
        changes: Arc::clone(&own.changes),
        barrier: ReadBarrier::new(Arc::clone(&own.registry), shutdown.clock()),
        replica: replica.clone(),
        progress: Progress::new(
            Arc::clone(&own.registry),
            Arc::clone(&own.dead_letters),
            shutdown.clock(),
        ),
        opener: opener.clone(),
    };
    let live = Live::start(&log, sources, shutdown);
    forget_old_keys(Arc::clone(&own.aggregates), shutdown);

    let letters = WithoutWaiting {
        letters: Arc::clone(&own.dead_letters),
        waiting: vec![waiting_customers.clone(), waiting_orders.clone()],
    };
    let operations = DeadLetterOperations::open(
        Arc::new(letters),
        vec![
            Arc::new(RetryProjection {
                projection: Arc::clone(&replica_projection),
                topic: replica::event::TOPIC,
            }),
            Arc::new(RetryProjection {
                projection: Arc::clone(&audit_projection),
                topic: domain::event::TOPIC,
            }),
        ],
        &log,
        shutdown,
    );
    let orders_made = Arc::new(RebuildAggregates::new(
        Arc::clone(&own.aggregates),
        domain::event::TOPIC,
        OrderReader::new(opener.clone()),
        waiting_orders.clone(),
    ));
    waiting_orders.release(Arc::clone(&orders_made) as _, &keys, shutdown);
    let replica_made = Arc::new(RebuildReplica::new(
        replica.clone(),
        opener,
        Forgetting::new(Arc::clone(&own.aggregates)),
        waiting_customers.clone(),
    ));
    waiting_customers.release(Arc::clone(&replica_made) as _, &keys, shutdown);
    let targets: Vec<Arc<dyn Target>> = vec![
        Arc::clone(&orders_made) as _,
        Arc::new(RebuildTrail::new(
            audit_projection,
            Arc::clone(&own.changes),
            domain::event::TOPIC,
        )),
        replica_made,
    ];
    let watch = LogWatch::new(
        &log,
        Arc::clone(&own.registry),
        vec![
            (domain::event::TOPIC, audit_status.clone()),
            (replica::event::TOPIC, replica_status.clone()),
        ],
        shutdown.clock(),
    )
    .with_keys(&keys);
    let gate = Gate::closed();
    fill_new_store(
        Arc::clone(&own.registry),
        targets.clone(),
        Arc::clone(&log),
        gate.clone(),
        &watch,
        settings.store.truncated_log(),
        shutdown,
    );
    watch.start(shutdown);
    let rebuilder = Rebuilder::new(targets, Arc::clone(&log), sealer.clone(), shutdown.clone())
        .watching(watch.clone());
    let log_office = LogOperations::new(
        watch.clone(),
        Arc::new(LogRestore::new(
            Arc::clone(&own.aggregates),
            Arc::clone(&own.changes),
            orders_made,
            OrderEncoding(sealer.clone()),
            Arc::clone(&log),
        )),
        None,
        shutdown.clone(),
    );

    components::store(health, &own.aggregates);
    components::filling(health, &gate);
    components::outbox(health, &relay);
    components::kafka(health, &log);
    components::log(health, &watch);
    let messages = |lag: u64| i64::try_from(lag).unwrap_or(i64::MAX);
    components::projection(
        health,
        "replica",
        replica_status,
        messages(settings.replica_late_lag),
        settings.replica_unready_lag.map(messages),
    );
    components::projection(health, "audit", audit_status, i64::MAX, None);
    components::data_keys(
        health,
        vec![waiting_customers.clone(), waiting_orders.clone()],
        sealer,
    );
    let key_office = KeyOperations::new(vec![waiting_customers, waiting_orders.clone()], None);
    let commands = OrderCommands::new(
        CommandHandler::new(Arc::clone(&own.aggregates), Some(relay), shutdown)
            .behind(gate.clone())
            .except(waiting_orders),
        replica.clone(),
        sealer.clone(),
        shutdown,
    );
    let backing = Backing {
        commands,
        replica: replica.clone(),
        changes: Arc::clone(&own.changes),
        live,
    };
    let shows = consistency::shows(replica.clone(), own.changes, shutdown.clock().clone());
    let rest = Rest {
        replica,
        orders: own.aggregates,
        gate,
    };
    let operator = operations
        .routes()
        .merge(rebuilder.routes())
        .merge(key_office.routes())
        .merge(rotation.routes())
        .merge(log_office.routes())
        .merge(admin::health::routes(health));
    Ok(graphql_routes(backing, Arc::clone(&shows), shutdown)
        .merge(waiting(rest::router(rest), shows))
        .merge(openapi::router(rest::description()))
        .merge(pages::router(Graph::Orders))
        .merge(guarded(operator, AdminToken::of(sealer))))
}

fn graphql_routes(backing: Backing, shows: Shows, shutdown: &Shutdown) -> axum::Router {
    let for_loaders = backing.clone();
    GraphQlEndpoint::new(Graph::Orders, schema(backing), shutdown.clone())
        .with_sdl(&crate::graphql::sdl())
        .with_entities(&["Customer", "Order"])
        .showing(shows)
        .with_operation_data(move |data| {
            data.insert(for_loaders.loaders());
        })
        .router()
}
