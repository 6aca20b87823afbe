//! The process: opens the stores, starts relay and projection, and serves until it is told to stop.

use std::sync::Arc;

use axum::Router;
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
    graphql::{GraphQlEndpoint, Limits},
    kafka::{connection::Kafka, settings::KafkaSettings, topics::Topic},
    outbox::relay::{self, RelayHandle, RelaySettings},
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
    audit::{AuditProjection, CustomerReader},
    customers::Customers,
    domain::event::{KEY_TOPIC, TOPIC},
    graphql, rest,
    stores::{NAMES, Stores},
    telling::{PersonalData, Teller},
    vault::SealedCards,
};

/// What cannot be taken from [`TOPIC`] is copied there.
const DEAD_LETTER_TOPIC: &str = "accounts.customer.change.DLT";

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

    /// How names, contacts, addresses and cards are written into events. What is once in the log in plain can never be erased.
    #[arg(
        long,
        env = "TANDEM_PERSONAL_DATA",
        value_enum,
        default_value_t = PersonalData::Sealed
    )]
    personal_data: PersonalData,
}

/// Runs the service until shutdown is requested. Kafka need not be there: what is to be published waits. Nor need MongoDB:
/// until it is there the actuator alone answers.
///
/// # Errors
/// When a setting does not fit, the port is taken or the store cannot be opened.
pub async fn run(settings: Settings, shutdown: Shutdown) -> Result<(), ServiceError> {
    let identity = Identity {
        name: "accounts",
        version: env!("CARGO_PKG_VERSION"),
    };
    let sealer = Sealer::from_settings(&settings.sealing)?;
    let open = async |waiting: HealthReporter, health: &Health| {
        let store = &settings.store;
        let (stores, _) = Stores::open(NAMES, store, &sealer, &waiting, &shutdown).await?;
        assemble(&settings, &stores, &sealer, health, &shutdown)
    };
    service::run(identity, settings.port, &settings.http, &shutdown, open).await
}

/// Starts everything that runs beside requests, and puts the routes together.
fn assemble(
    settings: &Settings,
    stores: &Stores,
    sealer: &Sealer,
    health: &Health,
    shutdown: &Shutdown,
) -> Result<Router, ServiceError> {
    let topics = vec![
        Topic::log(TOPIC),
        Topic::log(DEAD_LETTER_TOPIC),
        Topic::compacted(KEY_TOPIC),
    ];
    let kafka = Kafka::connect(settings.kafka.clone(), topics, shutdown)?;
    let keys = KeyRing::start(&kafka, KEY_TOPIC, Role::Owner, shutdown);
    let relay = relay::start(
        Arc::clone(&stores.aggregates) as _,
        &kafka,
        TOPIC,
        &settings.relay,
        shutdown,
    )?;
    let audit = Arc::new(AuditProjection::new(Arc::clone(&stores.changes)));
    let audit_status = run_projection(
        Arc::clone(&audit),
        &stores.identity,
        TOPIC,
        DEAD_LETTER_TOPIC,
        &kafka,
        Arc::clone(&stores.dead_letters),
        shutdown,
    )?;
    let office = DeadLetterOffice::open(
        Arc::clone(&stores.dead_letters),
        vec![Arc::new(RetryProjection(Arc::clone(&audit)))],
        &kafka,
    );
    forget_old_keys(Arc::clone(&stores.aggregates), shutdown);

    let targets: Vec<Arc<dyn Target>> = vec![
        Arc::new(RebuildAggregates::new(
            Arc::clone(&stores.aggregates),
            TOPIC,
            CustomerReader::new(Opener::new(Arc::new(keys), sealer.clone())),
        )),
        Arc::new(RebuildTrail::new(audit, Arc::clone(&stores.changes), TOPIC)),
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

    components::store(health, &stores.aggregates);
    components::filling(health, &gate);
    components::outbox(health, &relay);
    components::kafka(health, &kafka);
    components::projection(health, "audit", Affects::HealthOnly, audit_status, i64::MAX);
    let operator = office.routes().merge(rebuilder.routes());
    Ok(routes(
        stores,
        Some(relay),
        gate,
        sealer,
        settings.personal_data,
        shutdown,
    )
    .merge(openapi::router(rest::openapi()))
    .merge(guarded(operator, AdminToken::of(sealer))))
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
    let handler = CommandHandler::new(Arc::clone(&stores.aggregates), relay).behind(gate);
    let vault = Arc::new(SealedCards::new(sealer.clone()));
    let teller = Teller::new(sealer.clone(), personal_data);
    let customers = Customers::new(handler, vault, teller);
    let schema = graphql::schema(
        customers.clone(),
        Arc::clone(&stores.aggregates),
        Limits::default(),
    );
    let data = graphql::operation_data(Arc::clone(&stores.aggregates), Arc::clone(&stores.changes));
    GraphQlEndpoint::new(schema, shutdown.clone())
        .with_operation_data(data)
        .router()
        .merge(rest::router(customers))
}
