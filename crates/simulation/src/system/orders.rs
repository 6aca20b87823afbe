//! An instance of orders, put together as in `tandem_orders::service`, without the web.

use std::sync::Arc;

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
    store::{AggregateStore, ChangeLog, DeadLetterStore, ReadBarrier, Registry},
    system::{self, Claimant, SystemLog},
    waiting::Waiting,
};
use tandem_model::aggregate::Aggregate;
use tandem_orders::{
    audit::{self, AuditProjection},
    commands::OrderCommands,
    consistency::{self, Shows},
    domain::{Order, event::TOPIC},
    erasure::{Forgetting, KEY_TOPIC, OrderEncoding, OrderReader},
    live::{Live, Sources},
    replica::{
        self, Replica, ReplicaStore, keys::ReplicaKeys, progress::Progress,
        projection::ReplicaProjection, rebuild::RebuildReplica,
    },
    rotation::{RewrapOrders, RewrapReplica},
};

use super::Parted;

/// The topics whose records are signed, each with the service that signs them.
const SIGNED: Topics = &[
    (replica::event::TOPIC, "accounts"),
    (KEY_TOPIC, "accounts"),
    (TOPIC, "orders"),
];

/// The parts of an instance of orders that others use. Clones share it.
#[derive(Clone)]
pub struct Orders {
    /// Carries out commands.
    pub commands: OrderCommands,
    /// The replica of customers.
    pub replica: Replica,
    /// The live feeds.
    pub live: Live,
    /// Reads orders.
    pub store: Arc<dyn AggregateStore<Order>>,
    /// Reads the audit trail of orders.
    pub changes: Arc<dyn ChangeLog>,
    /// Waits until a reader's own writes are visible.
    pub shows: Shows,
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
    /// Re-seals what an older sealing key has sealed.
    pub rotation: KeyRotation,
    /// The keys from the topic of keys.
    pub keys: KeyRing,
}

/// Starts everything that runs in the background.
pub(super) fn assemble(parts: &Parted<Order>) -> Orders {
    let Parted {
        process,
        database,
        sealer,
        identity,
        ..
    } = parts;
    let shutdown = &process.shutdown;
    let clock = shutdown.clock();
    let aggregates: Arc<dyn AggregateStore<Order>> = Arc::new(database.clone());
    let changes: Arc<dyn ChangeLog> = Arc::new(database.clone());
    let letters: Arc<dyn DeadLetterStore> = Arc::new(database.clone());
    let registry: Arc<dyn Registry> = Arc::new(database.clone());
    let replica_store: Arc<dyn ReplicaStore> = Arc::new(database.clone());
    let kafka: Arc<dyn Log> = Arc::new(parts.log.clone());
    let stored = Arc::new(ReplicaKeys(Arc::clone(&replica_store)));
    let signatures = parts.signatures("orders", SIGNED);
    let ports = RingPorts {
        signatures: signatures.clone(),
        letters: Arc::clone(&letters),
        memory: Some(KeyMemory {
            registry: Arc::clone(&registry),
            takes_over: parts.takes_over,
        }),
    };
    let keys = KeyRing::start_signed(&kafka, KEY_TOPIC, Role::Reader, stored, ports, shutdown);
    let system_log = SystemLog::new(kafka, TOPIC, shutdown).signed(signatures);
    let claimant = Claimant {
        service: "orders",
        role: Role::Reader,
        projection: audit::NAME,
        topics: vec![TOPIC, replica::event::TOPIC],
        store: identity.clone(),
        sealer: sealer.clone(),
        registry: Arc::clone(&registry),
        takes_over: parts.takes_over,
    };
    system::claim(claimant, &system_log, &keys, shutdown);
    let log: Arc<dyn Log> = Arc::new(system_log);
    let opener = Opener::new(Arc::new(keys.clone()), sealer.clone());
    let waiting_customers = Waiting::of(replica::projection::NAME, Arc::clone(&letters), clock);
    let waiting_orders = Waiting::of(Order::COLLECTION, Arc::clone(&letters), clock);
    let settings = RelaySettings::default();
    let outbox = Arc::new(database.clone());
    let relay = relay::start(outbox, &log, TOPIC, &settings, shutdown).ok();
    let rotation = KeyRotation::new(
        vec![
            Arc::new(RewrapReplica {
                store: Arc::clone(&replica_store),
                sealer: sealer.clone(),
            }),
            Arc::new(RewrapOrders {
                orders: Arc::clone(&aggregates),
                sealer: sealer.clone(),
            }),
        ],
        Arc::clone(&registry),
        sealer.clone(),
        None,
        shutdown.clone(),
    );
    rotation.resume();
    let replica = Replica::new(replica_store).with_clock(clock.clone());
    let forgetting = Forgetting::new(Arc::clone(&aggregates));
    let replica_projection = Arc::new(ReplicaProjection::new(
        replica.clone(),
        opener.clone(),
        forgetting.clone(),
        waiting_customers.clone(),
    ));
    let audit_projection = Arc::new(AuditProjection::new(
        Arc::clone(&changes),
        replica.clone(),
        forgetting.clone(),
    ));
    let replica_status = run_projection(
        replica_projection,
        identity,
        replica::event::TOPIC,
        &log,
        Arc::clone(&letters),
        shutdown,
    )
    .unwrap_or_default();
    let audit_status = run_projection(
        Arc::clone(&audit_projection),
        identity,
        TOPIC,
        &log,
        Arc::clone(&letters),
        shutdown,
    )
    .unwrap_or_default();
    let sources = Sources {
        orders: Arc::clone(&aggregates),
        changes: Arc::clone(&changes),
        barrier: ReadBarrier::new(Arc::clone(&registry), clock),
        replica: replica.clone(),
        progress: Progress::new(Arc::clone(&registry), letters, clock),
        opener: opener.clone(),
    };
    let live = Live::start(&log, sources, shutdown);
    forget_old_keys(Arc::clone(&aggregates), shutdown);
    let orders = Arc::new(RebuildAggregates::new(
        Arc::clone(&aggregates),
        TOPIC,
        OrderReader::new(opener.clone()),
        waiting_orders.clone(),
    ));
    waiting_orders.release(Arc::clone(&orders) as _, &keys, shutdown);
    let customers = Arc::new(RebuildReplica::new(
        replica.clone(),
        opener,
        forgetting,
        waiting_customers.clone(),
    ));
    waiting_customers.release(Arc::clone(&customers) as _, &keys, shutdown);
    let restores = Arc::new(LogRestore::new(
        Arc::clone(&aggregates),
        Arc::clone(&changes),
        Arc::clone(&orders) as _,
        OrderEncoding(sealer.clone()),
        Arc::clone(&log),
    ));
    let targets: Vec<Arc<dyn Target>> = vec![
        orders,
        Arc::new(RebuildTrail::new(
            audit_projection,
            Arc::clone(&changes),
            TOPIC,
        )),
        customers,
    ];
    let logs = vec![
        (TOPIC, audit_status),
        (replica::event::TOPIC, replica_status),
    ];
    let watch = LogWatch::new(&log, Arc::clone(&registry), logs, clock);
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
    let shows = consistency::shows(replica.clone(), Arc::clone(&changes), clock.clone());
    let handler = CommandHandler::new(Arc::clone(&aggregates), relay, shutdown)
        .behind(gate.clone())
        .except(waiting_orders);
    Orders {
        commands: OrderCommands::new(handler, replica.clone(), sealer.clone(), shutdown),
        replica,
        live,
        store: aggregates,
        changes,
        shows,
        targets,
        log,
        gate,
        watch,
        restores,
        rotation,
        keys,
    }
}
