//! The simulated system: instances of both services on one log. Each service has its own database.

mod accounts;
mod keys;
mod orders;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tandem_accounts::domain::{
    Customer,
    event::{KEY_TOPIC, TOPIC as CUSTOMERS},
};
use tandem_event_path::{
    log::Log,
    rebuild::{Lacking, Order as RebuildOrder, Target},
    sealing::Sealer,
    signing::{Signatures, SigningKey, SigningSettings, Topics},
    store::{identity, until_answered},
};
use tandem_model::aggregate::Aggregate;
use tandem_orders::domain::{Order, event::TOPIC as ORDERS};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    chance::draw,
    faults::Faults,
    log::{Cluster, SimLog},
    losses::Losses,
    process::{Process, Wrong},
    store::{Database, Kind},
    world::World,
};

pub use accounts::Accounts;
pub use keys::{SealingKeys, new_sealer, signing_key};
pub use orders::Orders;

/// The topics, each with whether it is compacted.
pub const TOPICS: [(&str, bool); 5] = [
    (CUSTOMERS, false),
    ("accounts.customer.change.DLT", false),
    (KEY_TOPIC, true),
    (ORDERS, false),
    ("orders.order.change.DLT", false),
];

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time limit for background tasks of an instance at its end, as in `tandem_assembly::service`.
const DRAIN_LIMIT: Duration = Duration::from_millis(1_200);

/// The number of pending events at which an aggregate has no room for more. Commands are refused while publishing is
/// late.
const MOST_PENDING: usize = 5;
/// The layout of a system.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The number of instances of each service.
    pub instances: usize,
    /// The kind of the services' databases.
    pub kind: Kind,
    /// The number of partitions of each topic.
    pub partitions: usize,
    /// Whether the sealing key is being replaced: every process opens with both keys and seals with one of them.
    pub mixes_sealing_keys: bool,
    /// Whether the signing keys are replaced at the end.
    pub replaces_signing_keys: bool,
    /// Whether a primary is cut off at the end while subscribers begin.
    pub cuts_a_primary_off: bool,
}

/// A place for one process of a service, which may be running or not.
pub struct Slot<S> {
    name: String,
    /// The error of its clock.
    pub wrong: Wrong,
    running: Mutex<Option<Running<S>>>,
}

struct Running<S> {
    process: Process,
    service: Option<S>,
}

impl<S: Clone> Slot<S> {
    fn new(name: String) -> Self {
        Self {
            name,
            wrong: Wrong::by(0),
            running: Mutex::new(None),
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running<S>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self, process: &Process, service: S) {
        if let Some(running) = &mut *self.running()
            && running.process.name == process.name
        {
            running.service = Some(service);
        }
    }

    /// The service, if it is running and open.
    #[must_use]
    pub fn service(&self) -> Option<(Process, S)> {
        let running = self.running();
        let running = running.as_ref()?;
        Some((running.process.clone(), running.service.clone()?))
    }
}

/// A system. Clones share it.
#[derive(Clone)]
pub struct System(Arc<Parts>);

/// The parts of a system.
pub struct Parts {
    /// The world of the system.
    pub world: World,
    /// The log.
    pub cluster: Cluster,
    /// The planted faults.
    pub faults: Faults,
    /// The database of accounts.
    pub customers: Database<Customer>,
    /// The database of orders.
    pub orders: Database<Order>,
    /// The instances of accounts.
    pub accounts_slots: Vec<Arc<Slot<Accounts>>>,
    /// The instances of orders.
    pub orders_slots: Vec<Arc<Slot<Orders>>>,
    /// The losses of the log.
    pub losses: Losses,
    sealing_keys: Mutex<SealingKeys>,
    has_new_signing_keys: AtomicBool,
    refusals: Mutex<Vec<String>>,
    /// Whether there are no more faults.
    peace: AtomicBool,
}

impl std::ops::Deref for System {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl System {
    /// Creates a system. Nothing runs yet.
    #[must_use]
    pub fn new(world: &World, layout: Layout, faults: &Faults) -> Self {
        let cluster = Cluster::new(world, faults);
        for (topic, is_compacted) in TOPICS {
            cluster.make(topic, is_compacted, layout.partitions);
        }
        let kind = layout.kind;
        let customers: Database<Customer> = Database::new(world, "accounts", kind, faults);
        let orders: Database<Order> = Database::new(world, "orders", kind, faults);
        customers.refuse_beyond(MOST_PENDING);
        orders.refuse_beyond(MOST_PENDING);
        Self(Arc::new(Parts {
            world: world.clone(),
            cluster,
            faults: faults.clone(),
            customers,
            orders,
            sealing_keys: Mutex::new(if layout.mixes_sealing_keys {
                SealingKeys::Mixed
            } else {
                SealingKeys::Before
            }),
            has_new_signing_keys: AtomicBool::new(false),
            accounts_slots: slots("accounts", layout.instances),
            orders_slots: slots("orders", layout.instances),
            losses: Losses::default(),
            refusals: Mutex::default(),
            peace: AtomicBool::new(false),
        }))
    }

    /// Starts an instance of accounts if it does not run.
    pub fn start_accounts(&self, number: usize) {
        self.start_accounts_so(number, false);
    }

    /// Starts an instance of accounts if it does not run, with the order to go on with its present keys.
    pub fn take_over_accounts(&self, number: usize) {
        self.start_accounts_so(number, true);
    }

    fn start_accounts_so(&self, number: usize, takes_over: bool) {
        let (slot, database) = (Arc::clone(&self.accounts_slots[number]), &self.customers);
        self.start(slot, database, takes_over, accounts::assemble);
    }

    /// Starts an instance of orders if it does not run.
    pub fn start_orders(&self, number: usize) {
        self.start_orders_so(number, false);
    }

    /// Starts an instance of orders if it does not run, with the order to go on with the present keys.
    pub fn take_over_orders(&self, number: usize) {
        self.start_orders_so(number, true);
    }

    fn start_orders_so(&self, number: usize, takes_over: bool) {
        let (slot, database) = (Arc::clone(&self.orders_slots[number]), &self.orders);
        self.start(slot, database, takes_over, orders::assemble);
    }

    /// Gives later starts the new signing key of their service. No instance with the old key may be running.
    pub fn replace_signing_keys(&self) {
        self.has_new_signing_keys.store(true, Ordering::Relaxed);
    }

    /// Gives later starts these sealing keys.
    pub fn seal_with(&self, keys: SealingKeys) {
        *self.sealing_keys() = keys;
    }

    /// Seals and opens with all sealing keys that processes are started with now.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        self.sealing_keys().sealer(1)
    }

    fn sealing_keys(&self) -> MutexGuard<'_, SealingKeys> {
        let keys = self.sealing_keys.lock();
        keys.unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts every instance that does not run.
    pub fn start_all(&self) {
        (0..self.accounts_slots.len()).for_each(|number| self.start_accounts(number));
        (0..self.orders_slots.len()).for_each(|number| self.start_orders(number));
    }

    /// Kills an instance of accounts.
    pub fn kill_accounts(&self, number: usize) {
        self.kill(&self.accounts_slots[number], &self.customers);
    }

    /// Kills an instance of orders.
    pub fn kill_orders(&self, number: usize) {
        self.kill(&self.orders_slots[number], &self.orders);
    }

    /// Asks an instance to stop, as SIGTERM does.
    pub fn stop_orders(&self, number: usize) {
        self.stop(&self.orders_slots[number]);
    }

    /// Asks an instance to stop, as SIGTERM does.
    pub fn stop_accounts(&self, number: usize) {
        self.stop(&self.accounts_slots[number]);
    }

    /// Makes an instance rebuild its data from the log.
    pub fn rebuild_accounts(&self, number: usize) {
        if let Some((process, accounts)) = self.accounts_slots[number].service() {
            drop(self.rebuild(&process, accounts.targets, accounts.log));
        }
    }

    /// Makes an instance rebuild its data from the log.
    pub fn rebuild_orders(&self, number: usize) {
        if let Some((process, orders)) = self.orders_slots[number].service() {
            drop(self.rebuild(&process, orders.targets, orders.log));
        }
    }

    /// Makes one instance of each service rebuild its data, without further faults.
    pub async fn rebuild_in_peace(&self) {
        self.peace.store(true, Ordering::Relaxed);
        if let Some((process, accounts)) = self.accounts_slots[0].service() {
            let _ = self.rebuild(&process, accounts.targets, accounts.log).await;
        }
        if let Some((process, orders)) = self.orders_slots[0].service() {
            let _ = self.rebuild(&process, orders.targets, orders.log).await;
        }
    }

    fn rebuild(
        &self,
        process: &Process,
        targets: Vec<Arc<dyn Target>>,
        log: Arc<dyn Log>,
    ) -> JoinHandle<()> {
        let (system, shutdown) = (self.clone(), process.shutdown.clone());
        let order = RebuildOrder {
            looks: true,
            ..RebuildOrder::default()
        };
        let rebuilding = async move {
            for target in targets {
                let name = target.name();
                let rebuilt = target.rebuild(&log, order, &shutdown, &mut |_| {}).await;
                system.world.note(|| match &rebuilt {
                    Ok(outcome) => {
                        format!("{name} is rebuilt: {} written", outcome.progress.written)
                    }
                    Err(error) => format!("{name} is not rebuilt: {error}"),
                });
                if let Err(error) = &rebuilt
                    && system.peace.load(Ordering::Relaxed)
                {
                    let told = format!("{name} cannot be rebuilt in peace: {error}");
                    system.refusals().push(told);
                }
                // A log that has lost nothing lacks nothing that is stored and not pending. A differing position is no
                // violation: after partitions were added, a repeated event is in two of them, and its first position
                // depends on the reader.
                let lacking = rebuilt.map(|outcome| outcome.lacking).unwrap_or_default();
                if system.losses.is_any() {
                    continue;
                }
                let is_place = |it: &Lacking| matches!(it, Lacking::Differing(_));
                for lacking in lacking.into_iter().filter(|it| !is_place(it)) {
                    let told = format!("a rebuild of {name} misses in the log {lacking:?}");
                    system.refusals().push(told);
                }
            }
        };
        process.shutdown.spawn(rebuilding)
    }

    /// Ends everything that runs.
    pub fn end(&self) {
        for slot in &self.accounts_slots {
            self.kill(slot, &self.customers);
        }
        for slot in &self.orders_slots {
            self.kill(slot, &self.orders);
        }
        self.cluster.end();
    }

    fn start<A: Aggregate, S: Clone + Send + 'static>(
        &self,
        slot: Arc<Slot<S>>,
        database: &Database<A>,
        takes_over: bool,
        assemble: fn(&Parted<A>) -> S,
    ) {
        if slot.running().is_some() {
            return;
        }
        let (world, number) = (&self.world, self.world.number());
        let process = Process::new(&format!("{}#{number}", slot.name), world, &slot.wrong);
        world.note(|| format!("{} starts", process.name));
        *slot.running() = Some(Running {
            process: process.clone(),
            service: None,
        });
        let (cluster, database) = (self.cluster.clone(), database.connected(number));
        let sealer = self.sealing_keys().sealer(number);
        let shutdown = process.shutdown.clone();
        self.watch(process.clone(), Arc::clone(&slot), database.clone());
        let is_new = self.has_new_signing_keys.load(Ordering::Relaxed);
        let Ok(signing_key) = signing_key(&slot.name, is_new) else {
            return;
        };
        let opening = async move {
            let clock = process.shutdown.clock();
            let asked = || identity(&database, clock);
            let named = until_answered(|_| {}, &process.shutdown, asked).await;
            if let Some(identity) = named {
                let parts = Parted {
                    log: SimLog::new(&cluster, &process),
                    sealer: sealer.with_clock(clock.clone()),
                    process: process.clone(),
                    database: database.clone(),
                    identity,
                    signing_key,
                    takes_over,
                };
                slot.served(&process, assemble(&parts));
            }
        };
        drop(shutdown.spawn(opening));
    }

    fn kill<A: Aggregate, S: Clone>(&self, slot: &Slot<S>, database: &Database<A>) {
        let Some(running) = slot.running().take() else {
            return;
        };
        let name = &running.process.name;
        self.world.note(|| format!("{name} is killed"));
        running.process.kill();
        self.cluster.miss(&running.process);
        if database.is_embedded() {
            database.fail_over(Duration::ZERO);
        }
    }

    fn stop<S: Clone>(&self, slot: &Slot<S>) {
        if let Some(running) = slot.running().as_ref() {
            running
                .process
                .shutdown
                .request("the operating system says so");
        }
    }

    /// Ends a process that stops, for whatever reason, when it is done or its time is over.
    fn watch<A: Aggregate, S: Clone + Send + 'static>(
        &self,
        process: Process,
        slot: Arc<Slot<S>>,
        database: Database<A>,
    ) {
        let system = self.clone();
        self.world.spawn(async move {
            process.shutdown.requested().await;
            let name = &process.name;
            system.world.note(|| format!("{name} stops"));
            if let Some(sentence) = process.shutdown.failure() {
                let mut refusals = system.refusals();
                refusals.push(format!("{name} cannot go on: {sentence}"));
            }
            let drained = process.shutdown.drain(DRAIN_LIMIT).await;
            system
                .world
                .note(|| format!("{name} has stopped: {}", drained.is_ok()));
            let is_it = |running: &Running<S>| running.process.name == process.name;
            let is_still = slot.running().as_ref().is_some_and(is_it);
            if is_still {
                system.kill(&slot, &database);
            }
        });
    }

    /// The reasons of processes that said that they cannot go on.
    pub fn refusals(&self) -> MutexGuard<'_, Vec<String>> {
        let refusals = self.refusals.lock();
        refusals.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to an instance and waits for the answer. `None` if there is none; the request may still have
    /// been carried out.
    pub async fn ask<S, T, F>(
        &self,
        slots: &[Arc<Slot<S>>],
        request: impl FnOnce(S) -> F + Send + 'static,
    ) -> Option<T>
    where
        S: Clone + Send + 'static,
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let slot = draw(|chance| chance.pick(slots).cloned())?;
        let way = || Duration::from_millis(draw(|chance| chance.between(1, 3)));
        self.world.sleep(way()).await;
        let (process, service) = slot.service()?;
        let (answer, told) = oneshot::channel();
        drop(process.shutdown.spawn(async move {
            let _ = answer.send(request(service).await);
        }));
        let clock = tandem_runtime::clock::Clock::default();
        let told = clock.timeout(PATIENCE, told).await;
        self.world.sleep(way()).await;
        told.ok()?.ok()
    }
}

fn slots<S: Clone>(service: &str, count: usize) -> Vec<Arc<Slot<S>>> {
    let slot = |number| Arc::new(Slot::new(format!("{service}-{number}")));
    (1..=count).map(slot).collect()
}

/// The parts of an instance.
struct Parted<A> {
    process: Process,
    log: SimLog,
    database: Database<A>,
    sealer: Sealer,
    identity: String,
    signing_key: SigningKey,
    /// Whether it goes on with its present keys, whatever its store has pinned.
    takes_over: bool,
}

impl<A> Parted<A> {
    /// The signatures of a service, for what it publishes and reads.
    fn signatures(&self, service: &'static str, topics: Topics) -> Signatures {
        let settings = SigningSettings::default();
        Signatures::new(service, self.signing_key.clone(), topics, &settings)
    }
}
