//! The process of accounts. It opens the stores, puts relay, projection and routes together, and serves until shutdown
//! is requested.

use std::sync::Arc;

use axum::Router;
use clap::Args;
use tandem_assembly::{
    admin::{
        self, AdminToken,
        audit::AuditOperations,
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
    outbox::relay::{self, RelayHandle, RelaySettings},
    projection::run_projection,
    rebuild::{RebuildAggregates, RebuildTrail, Target, fill_new_store},
    refused_records,
    sealing::{Sealer, SealingSettings},
    signing::{Signatures, SigningKey, SigningSettings, Topics},
    system::{self, Claimant, SystemLog},
    waiting::{Waiting, WithoutWaiting},
};
use tandem_log_kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic};
use tandem_model::aggregate::Aggregate;
use tandem_runtime::shutdown::Shutdown;
use tandem_service::{
    graphql::{GraphQlEndpoint, Limits},
    web::{
        HttpSettings,
        actuator::{Health, HealthReporter},
        consistency::waiting,
        openapi, pages,
    },
};
use tandem_web::Graph;

use crate::{
    audit::{self, AuditProjection, CustomerReader},
    consistency,
    customers::Customers,
    domain::{
        Customer,
        event::{KEY_TOPIC, TOPIC},
    },
    encoding::{EventEncoder, PersonalData},
    graphql,
    keys::{CustomerKeys, KeyHealing},
    rest,
    rotation::RewrapCustomers,
    stores::{NAMES, Stores},
    vault::SealedCards,
};

/// The dead letter topic: messages of [`TOPIC`] that cannot be processed are copied here.
const DEAD_LETTER_TOPIC: &str = "accounts.customer.change.DLT";
/// The topics whose records are signed, each with the service that signs them.
const SIGNED: Topics = &[(TOPIC, "accounts"), (KEY_TOPIC, "accounts")];

/// Settings of the accounts service.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The port to listen on; 0 takes a free one.
    #[arg(long, env = "TANDEM_ACCOUNTS_PORT", default_value_t = 8080)]
    pub port: u16,

    #[command(flatten)]
    http: HttpSettings,

    #[command(flatten)]
    store: StoreSettings,

    #[command(flatten)]
    kafka: KafkaSettings,

    #[command(flatten)]
    relay: RelaySettings,

    #[command(flatten)]
    sealing: SealingSettings,

    #[command(flatten)]
    signing: SigningSettings,

    /// How names, contacts, addresses and cards are written into events. What is once in the log in plain can never be erased.
    #[arg(
        long,
        env = "TANDEM_PERSONAL_DATA",
        value_enum,
        default_value_t = PersonalData::Sealed
    )]
    personal_data: PersonalData,
}

/// Runs the service until shutdown is requested. Kafka may be away: events then stay pending. MongoDB may be away too:
/// until it answers, only the actuator does.
///
/// # Errors
/// When a setting does not fit, the port is taken or the store cannot be opened.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), ServiceError> {
    let identity = Identity {
        name: "accounts",
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
        let store = &settings.store;
        let (stores, _) = Stores::open(NAMES, store, &sealer, &waiting, &shutdown).await?;
        assemble(&settings, &stores, &sealer, &signatures, health, &shutdown)
    };
    service::run(identity, settings.port, &settings.http, &shutdown, open).await
}

/// Starts everything that runs in the background, and puts the routes together.
fn assemble(
    settings: &Settings,
    stores: &Stores,
    sealer: &Sealer,
    signatures: &Signatures,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Router, ServiceError> {
    let topics = vec![
        Topic::log(TOPIC),
        Topic::log(DEAD_LETTER_TOPIC),
        Topic::compacted(KEY_TOPIC),
    ];
    let kafka: Arc<dyn Log> = Arc::new(Kafka::connect(settings.kafka.clone(), topics, shutdown)?);
    let stored = Arc::new(CustomerKeys(Arc::clone(&stores.aggregates)));
    let ports = RingPorts {
        signatures: signatures.clone(),
        letters: Arc::clone(&stores.dead_letters),
        memory: Some(KeyMemory {
            registry: Arc::clone(&stores.registry),
            takes_over: settings.kafka.claim_topics,
        }),
    };
    let keys = KeyRing::start_signed(&kafka, KEY_TOPIC, Role::Owner, stored, ports, shutdown);
    refused_records::show(TOPIC);
    let system_log = SystemLog::new(kafka, TOPIC, shutdown).signed(signatures.clone());
    let claimant = Claimant {
        service: "accounts",
        role: Role::Owner,
        projection: audit::NAME,
        topics: vec![TOPIC],
        store: stores.identity.clone(),
        sealer: sealer.clone(),
        registry: Arc::clone(&stores.registry),
        takes_over: settings.kafka.claim_topics,
    };
    system::claim(claimant, &system_log, &keys, shutdown);
    let log: Arc<dyn Log> = Arc::new(system_log);
    let healing = KeyHealing::new(
        Arc::clone(&stores.aggregates),
        Arc::clone(&stores.changes),
        keys.clone(),
        sealer.clone(),
    );
    let waiting = Waiting::of(
        Customer::COLLECTION,
        Arc::clone(&stores.dead_letters),
        shutdown.clock(),
    );
    let relay = relay::start(
        Arc::clone(&stores.aggregates) as _,
        &log,
        TOPIC,
        &settings.relay,
        shutdown,
    )?;
    let audit = Arc::new(AuditProjection::new(Arc::clone(&stores.changes)));
    let audit_status = run_projection(
        Arc::clone(&audit),
        &stores.identity,
        TOPIC,
        &log,
        Arc::clone(&stores.dead_letters),
        shutdown,
    )?;
    let letters = WithoutWaiting {
        letters: Arc::clone(&stores.dead_letters),
        waiting: vec![waiting.clone()],
    };
    let operations = DeadLetterOperations::open(
        Arc::new(letters),
        vec![Arc::new(RetryProjection {
            projection: Arc::clone(&audit),
            topic: TOPIC,
        })],
        &log,
        shutdown,
    );
    forget_old_keys(Arc::clone(&stores.aggregates), shutdown);

    let opener = Opener::new(Arc::new(keys.clone()), sealer.clone());
    let customers = Arc::new(RebuildAggregates::new(
        Arc::clone(&stores.aggregates),
        TOPIC,
        CustomerReader::new(opener.clone()),
        waiting.clone(),
    ));
    waiting.release(Arc::clone(&customers) as _, &keys, shutdown);
    let targets: Vec<Arc<dyn Target>> = vec![
        Arc::clone(&customers) as _,
        Arc::new(RebuildTrail::new(audit, Arc::clone(&stores.changes), TOPIC)),
    ];
    let watch = LogWatch::new(
        &log,
        Arc::clone(&stores.registry),
        vec![(TOPIC, audit_status.clone())],
        shutdown.clock(),
    )
    .with_keys(&keys);
    let gate = Gate::closed();
    fill_new_store(
        Arc::clone(&stores.registry),
        targets.clone(),
        Arc::clone(&log),
        gate.clone(),
        &watch,
        settings.store.truncated_log(),
        shutdown,
    );
    watch.start(shutdown);
    healing.start(&watch, shutdown);
    let rebuilder = Rebuilder::new(targets, Arc::clone(&log), sealer.clone(), shutdown.clone())
        .healing(Arc::new(healing.clone()))
        .watching(watch.clone());
    let log_restore = Arc::new(LogRestore::new(
        Arc::clone(&stores.aggregates),
        Arc::clone(&stores.changes),
        customers,
        EventEncoder::new(sealer.clone(), settings.personal_data),
        Arc::clone(&log),
    ));
    let rotation = KeyRotation::new(
        vec![Arc::new(RewrapCustomers {
            customers: Arc::clone(&stores.aggregates),
            topic: keys.clone(),
            log: Arc::clone(&log_restore),
            sealer: sealer.clone(),
        })],
        Arc::clone(&stores.registry),
        sealer.clone(),
        Some(("accounts", keys)),
        shutdown.clone(),
    );
    rotation.resume();
    let log_office = LogOperations::new(
        watch.clone(),
        log_restore,
        Some(Arc::new(healing.clone())),
        shutdown.clone(),
    );
    let key_office = KeyOperations::new(vec![waiting.clone()], Some(Arc::new(healing)));
    let audits = AuditOperations::new(
        Arc::clone(&stores.changes),
        Arc::clone(&log),
        TOPIC,
        "customer",
        opener.clone(),
    );

    components::store(health, &stores.aggregates);
    components::filling(health, &gate);
    components::outbox(health, &relay);
    components::kafka(health, &log);
    components::log(health, &watch);
    components::projection(health, "audit", audit_status, i64::MAX, None);
    components::data_keys(health, vec![waiting.clone()], sealer);
    let operator = operations
        .routes()
        .merge(rebuilder.routes())
        .merge(key_office.routes())
        .merge(rotation.routes())
        .merge(log_office.routes())
        .merge(audits.routes())
        .merge(admin::health::routes(health));
    let handler = CommandHandler::new(Arc::clone(&stores.aggregates), Some(relay), shutdown)
        .behind(gate)
        .except(waiting);
    Ok(
        routes_of(stores, handler, sealer, settings.personal_data, shutdown)
            .merge(openapi::router(rest::openapi()))
            .merge(pages::router(Graph::Accounts))
            .merge(guarded(operator, AdminToken::of(sealer))),
    )
}

/// GraphQL and REST on these stores. Without a relay, events stay pending.
pub fn routes(
    stores: &Stores,
    relay: Option<RelayHandle>,
    gate: Gate,
    sealer: &Sealer,
    personal_data: PersonalData,
    shutdown: &Shutdown,
) -> Router {
    let handler = CommandHandler::new(Arc::clone(&stores.aggregates), relay, shutdown).behind(gate);
    routes_of(stores, handler, sealer, personal_data, shutdown)
}

fn routes_of(
    stores: &Stores,
    handler: CommandHandler<Customer>,
    sealer: &Sealer,
    personal_data: PersonalData,
    shutdown: &Shutdown,
) -> Router {
    let vault = Arc::new(SealedCards::new(sealer.clone()));
    let encoder = EventEncoder::new(sealer.clone(), personal_data);
    let customers = Customers::new(handler, vault, encoder);
    let schema = graphql::schema(
        customers.clone(),
        Arc::clone(&stores.aggregates),
        Limits::default(),
    );
    let data = graphql::operation_data(
        Arc::clone(&stores.aggregates),
        Arc::clone(&stores.changes),
        customers.gate().clone(),
        shutdown.clock().clone(),
    );
    let shows = consistency::shows(Arc::clone(&stores.changes), shutdown.clock().clone());
    GraphQlEndpoint::new(Graph::Accounts, schema, shutdown.clone())
        .with_sdl(&graphql::sdl())
        .with_entities(&["Customer"])
        .showing(Arc::clone(&shows))
        .with_operation_data(data)
        .router()
        .merge(waiting(rest::router(customers), shows))
}
