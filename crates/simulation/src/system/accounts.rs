//! An instance of accounts, put together as in `tandem_accounts::service`, without the web.

use std::sync::Arc;

use tandem_accounts::{
    audit::{self, AuditProjection, CustomerReader},
    customers::Customers,
    domain::{
        Customer,
        event::{KEY_TOPIC, TOPIC},
    },
    encoding::{EventEncoder, PersonalData},
    keys::{CustomerKeys, KeyHealing},
    rotation::RewrapCustomers,
    vault::SealedCards,
};
use tandem_assembly::admin::rotation::KeyRotation;
use tandem_event_path::{
    commands::{CommandHandler, Gate, forget_old_keys},
    data_keys::{KeyMemory, KeyRing, Opener, RingPorts, Role},
    log::Log,
    log_memory::LogWatch,
    log_restore::{LogRestore, RestoresLog},
    outbox::relay::{self, RelaySettings},
    projection::run_projection,
    rebuild::{RebuildAggregates, RebuildTrail, Target, TruncatedLog, fill_new_store},
    signing::Topics,
    store::{AggregateStore, ChangeLog, DeadLetterStore, Registry},
    system::{self, Claimant, SystemLog},
    waiting::Waiting,
};
use tandem_model::aggregate::Aggregate;

use super::Parted;
use crate::store::Database;

/// The topics whose records are signed, each with the service that signs them.
const SIGNED: Topics = &[(TOPIC, "accounts"), (KEY_TOPIC, "accounts")];

/// The parts of an instance of accounts that others use. Clones share it.
#[derive(Clone)]
pub struct Accounts {
    /// Carries out commands.
    pub customers: Customers,
    /// Reads customers.
    pub store: Arc<dyn AggregateStore<Customer>>,
    /// The database, over the connection of this instance.
    pub database: Database<Customer>,
    /// The targets of a rebuild.
    pub targets: Vec<Arc<dyn Target>>,
    /// The log, as this instance reaches it.
    pub log: Arc<dyn Log>,
    /// Whether commands are accepted.
    pub gate: Gate,
    /// Reports whether its logs are those that its store was made from.
    pub watch: LogWatch,
    /// Writes to the log what the log lacks.
    pub restores: Arc<dyn RestoresLog>,
    /// Publishes again what the topic of keys has lost.
    pub healing: KeyHealing,
    /// Re-seals what an older sealing key has sealed.
    pub rotation: KeyRotation,
    /// The keys from the topic of keys.
    pub keys: KeyRing,
}

/// Starts everything that runs in the background.
pub(super) fn assemble(parts: &Parted<Customer>) -> Accounts {
    let Parted {
        process,
        database,
        sealer,
        identity,
        ..
    } = parts;
    let shutdown = &process.shutdown;
    let aggregates: Arc<dyn AggregateStore<Customer>> = Arc::new(database.clone());
    let changes: Arc<dyn ChangeLog> = Arc::new(database.clone());
    let dead_letters: Arc<dyn DeadLetterStore> = Arc::new(database.clone());
    let registry: Arc<dyn Registry> = Arc::new(database.clone());
    let kafka: Arc<dyn Log> = Arc::new(parts.log.clone());
    let stored = Arc::new(CustomerKeys(Arc::clone(&aggregates)));
    let signatures = parts.signatures("accounts", SIGNED);
    let ports = RingPorts {
        signatures: signatures.clone(),
        letters: Arc::clone(&dead_letters),
        memory: Some(KeyMemory {
            registry: Arc::clone(&registry),
            takes_over: parts.takes_over,
        }),
    };
    let keys = KeyRing::start_signed(&kafka, KEY_TOPIC, Role::Owner, stored, ports, shutdown);
    let system_log = SystemLog::new(kafka, TOPIC, shutdown).signed(signatures);
    let claimant = Claimant {
        service: "accounts",
        role: Role::Owner,
        projection: audit::NAME,
        topics: vec![TOPIC],
        store: identity.clone(),
        sealer: sealer.clone(),
        registry: Arc::clone(&registry),
        takes_over: parts.takes_over,
    };
    system::claim(claimant, &system_log, &keys, shutdown);
    let log: Arc<dyn Log> = Arc::new(system_log);
    let healing = KeyHealing::new(
        Arc::clone(&aggregates),
        Arc::clone(&changes),
        keys.clone(),
        sealer.clone(),
    );
    let waiting = Waiting::of(
        Customer::COLLECTION,
        Arc::clone(&dead_letters),
        shutdown.clock(),
    );
    let outbox = Arc::new(database.clone());
    let settings = RelaySettings::default();
    let relay = relay::start(outbox, &log, TOPIC, &settings, shutdown).ok();
    let audit = Arc::new(AuditProjection::new(Arc::clone(&changes)));
    let audit_status = run_projection(
        Arc::clone(&audit),
        identity,
        TOPIC,
        &log,
        dead_letters,
        shutdown,
    )
    .unwrap_or_default();
    forget_old_keys(Arc::clone(&aggregates), shutdown);
    let customers = Arc::new(RebuildAggregates::new(
        Arc::clone(&aggregates),
        TOPIC,
        CustomerReader::new(Opener::new(Arc::new(keys.clone()), sealer.clone())),
        waiting.clone(),
    ));
    waiting.release(Arc::clone(&customers) as _, &keys, shutdown);
    let restores = Arc::new(LogRestore::new(
        Arc::clone(&aggregates),
        Arc::clone(&changes),
        Arc::clone(&customers) as _,
        EventEncoder::new(sealer.clone(), PersonalData::Sealed),
        Arc::clone(&log),
    ));
    let rotation = KeyRotation::new(
        vec![Arc::new(RewrapCustomers {
            customers: Arc::clone(&aggregates),
            topic: keys.clone(),
            log: Arc::clone(&restores),
            sealer: sealer.clone(),
        })],
        Arc::clone(&registry),
        sealer.clone(),
        Some(("accounts", keys.clone())),
        shutdown.clone(),
    );
    rotation.resume();
    let targets: Vec<Arc<dyn Target>> = vec![
        customers,
        Arc::new(RebuildTrail::new(audit, changes, TOPIC)),
    ];
    let logs = vec![(TOPIC, audit_status)];
    let watch = LogWatch::new(&log, Arc::clone(&registry), logs, shutdown.clock());
    let gate = Gate::closed();
    fill_new_store(
        registry,
        targets.clone(),
        Arc::clone(&log),
        gate.clone(),
        &watch,
        TruncatedLog::Refused,
        shutdown,
    );
    watch.start(shutdown);
    healing.start(&watch, shutdown);
    let handler = CommandHandler::new(Arc::clone(&aggregates), relay, shutdown)
        .behind(gate.clone())
        .except(waiting);
    let vault = Arc::new(SealedCards::new(sealer.clone()));
    let encoder = EventEncoder::new(sealer.clone(), PersonalData::Sealed);
    Accounts {
        customers: Customers::new(handler, vault, encoder),
        store: aggregates,
        database: database.clone(),
        targets,
        log,
        gate,
        watch,
        restores,
        healing,
        rotation,
        keys,
    }
}
