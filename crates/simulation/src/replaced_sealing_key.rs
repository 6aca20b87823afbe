//! The replacement of the sealing key, as docs/decisions/0019 describes it. Instances are rolled until all of them seal
//! with the new key. Then several operators at once make both services re-seal what the old key has sealed, while
//! clients go on and instances are killed. Then the old key is removed.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use tandem_accounts::{
    audit::CustomerReader,
    domain::{Customer, event::TOPIC as CUSTOMERS},
    vault,
};
use tandem_assembly::admin::rotation::{KeyRotation, RotationView};
use tandem_event_path::{
    data_keys::{DataKey, KeyRing, Opener},
    log::Log,
    rebuild::{Order as RebuildOrder, ReadStates, RebuildAggregates, Target},
    store::{AggregateStore, DeadLetterStore},
    waiting::Waiting,
};
use tandem_model::aggregate::Aggregate;
use tandem_orders::{
    domain::{Order, event::TOPIC as ORDERS},
    erasure::OrderReader,
};

use crate::{
    chance::draw,
    clients::{Client, Known},
    faults::Faults,
    history::History,
    log::foreign::Forgers,
    nemesis::{self, Disruption},
    process::Process,
    store::{Database, Kind},
    system::{System, new_sealer},
};

pub use crate::system::SealingKeys;

/// The faults in the meantime.
const DISRUPTIONS: [Disruption; 9] = [
    Disruption::Kill,
    Disruption::Kill,
    Disruption::Kill,
    Disruption::Restart,
    Disruption::FailOver,
    Disruption::PrimaryCutOff,
    Disruption::LeaderLost,
    Disruption::BrokersDown,
    Disruption::Rebuild,
];
/// The duration of these faults.
const TROUBLED: Duration = Duration::from_secs(20);
/// The number of operators who give the command at the same time.
const OPERATORS: usize = 2;
/// The command is completed within this time when nothing goes wrong.
const PEACEFUL: Duration = Duration::from_secs(120);
/// How often an operator asks for the progress, as `tandem keys rotate` does.
const POLL: Duration = Duration::from_millis(300);
/// How long an operator waits before giving the command again.
const AGAIN: Duration = Duration::from_secs(2);
/// Longer than an instance takes to stop.
const STOPPED: Duration = Duration::from_secs(3);
/// Within this time, everything on its way to the log has arrived.
const ON_ITS_WAY: Duration = Duration::from_secs(20);
/// The number of clients that come meanwhile, and the number of requests of each.
const CLIENTS: usize = 2;
const REQUESTS: usize = 8;

/// A service, as an operator addresses it.
#[derive(Clone, Copy, Debug)]
enum Service {
    Accounts,
    Orders,
}

impl Service {
    /// Any running instance of the service.
    fn any(self, system: &System) -> Option<(Process, KeyRotation)> {
        let running: Vec<(Process, KeyRotation)> = match self {
            Self::Accounts => {
                let slots = system.accounts_slots.iter();
                let running = slots.filter_map(|slot| slot.service());
                running
                    .map(|(it, running)| (it, running.rotation))
                    .collect()
            }
            Self::Orders => {
                let slots = system.orders_slots.iter();
                let running = slots.filter_map(|slot| slot.service());
                running
                    .map(|(it, running)| (it, running.rotation))
                    .collect()
            }
        };
        draw(|chance| chance.pick(&running).cloned())
    }
}

/// Replaces the sealing key. Returns what was not achieved.
pub async fn replace(
    system: &System,
    history: &History,
    known: &Known,
    forgers: Forgers,
) -> Vec<String> {
    let world = &system.world;
    world.note(|| "the sealing key is replaced".to_owned());
    system.seal_with(SealingKeys::NewFirst);
    roll(system).await;
    nemesis::set_odds(system, forgers);
    let rage = world.task(nemesis::rage(
        system.clone(),
        DISRUPTIONS.to_vec(),
        TROUBLED,
    ));
    let operators = (0..OPERATORS).map(|_| {
        let system = system.clone();
        world.task(async move { through(&system, TROUBLED + PEACEFUL).await })
    });
    let operators: Vec<_> = operators.collect();
    let clients = (0..CLIENTS).map(|number| {
        let client = Client::new(system, history, known, &format!("s{number}"));
        world.task(client.run(REQUESTS))
    });
    let clients: Vec<_> = clients.collect();
    let _ = rage.await;
    nemesis::rest(system);
    let ended = join_all(operators).await;
    join_all(clients).await;
    let wrong: Vec<String> = ended
        .into_iter()
        .flatten()
        .filter_map(Result::err)
        .collect();
    if !wrong.is_empty() {
        return wrong;
    }
    world.sleep(ON_ITS_WAY).await;
    world.note(|| "the old sealing key is gone".to_owned());
    system.seal_with(SealingKeys::NewAlone);
    roll(system).await;
    let client = Client::new(system, history, known, "s9");
    client.run(REQUESTS).await;
    Vec::new()
}

/// Stops and starts the instances, one of each service at a time.
async fn roll(system: &System) {
    for number in 0..system.accounts_slots.len() {
        system.stop_accounts(number);
        system.stop_orders(number);
        system.world.sleep(STOPPED).await;
        system.start_all();
    }
}

/// Gives the command for one service after the other, as `tandem keys rotate` does, and repeats it until each service
/// says that the older keys may be removed.
async fn through(system: &System, patience: Duration) -> Result<(), String> {
    let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
    let end = system.world.elapsed() + patience;
    for service in [Service::Accounts, Service::Orders] {
        loop {
            let view = rotate(system, service).await;
            if view.as_ref().is_some_and(|view| view.ended_at.is_some()) {
                break;
            }
            if system.world.elapsed() >= end {
                return Err(format!(
                    "the sealing key of {service:?} cannot be replaced: {view:?}"
                ));
            }
            system.world.sleep(AGAIN).await;
        }
    }
    Ok(())
}

/// Gives the command once and waits for its end. `None` if the instance ended first.
async fn rotate(system: &System, service: Service) -> Option<RotationView> {
    let (process, rotation) = service.any(system)?;
    rotation.begin();
    loop {
        system.world.sleep(POLL).await;
        if process.is_dead() {
            return None;
        }
        let view = rotation.status();
        if !view.is_running() {
            system.world.note(|| format!("{} {view:?}", process.name));
            return Some(view);
        }
    }
}

fn is_new(wrapped: Option<&str>, subject: &str) -> bool {
    wrapped.is_none_or(|wrapped| DataKey::rewrap(&new_sealer(), wrapped, subject) == Ok(None))
}

/// The stored data that is still sealed with the old key. Nobody can open it any more.
#[must_use]
pub fn sealed_before(system: &System) -> Vec<String> {
    let (mut wrong, sealer) = (Vec::new(), new_sealer());
    system.customers.look(|db| {
        for (id, row) in &db.aggregates {
            if vault::resealed(&sealer, &row.stored.state) != Ok(None) {
                wrong.push(format!("{id} is stored with what the old key has sealed"));
            }
        }
    });
    system.orders.look(|db| {
        for (id, row) in &db.aggregates {
            let order = &row.stored.state;
            if !is_new(order.data_key.as_deref(), &order.customer_id) {
                wrong.push(format!(
                    "order {id} has a data key wrapped with the old key"
                ));
            }
        }
        for (id, (customer, _)) in &db.replica {
            if !is_new(customer.data_key.as_deref(), id) {
                wrong.push(format!(
                    "the replica has {id} with a data key wrapped with the old key"
                ));
            }
        }
    });
    wrong
}

/// Reads the logs into new stores with the new key only. Each must get the content of the present store.
pub async fn read_anew(system: &System) -> Vec<String> {
    let accounts = system.accounts_slots.iter().find_map(|it| it.service());
    let orders = system.orders_slots.iter().find_map(|it| it.service());
    let (Some((of_accounts, accounts)), Some((of_orders, orders))) = (accounts, orders) else {
        return vec!["nobody is there to read the logs with the new key".to_owned()];
    };
    let mut wrong = into_new_store::<Customer, _>(
        system,
        &of_accounts,
        (&accounts.log, CUSTOMERS),
        CustomerReader::new(opener(&accounts.keys)),
        (&system.customers, customer_as_logged),
    )
    .await;
    wrong.extend(
        into_new_store::<Order, _>(
            system,
            &of_orders,
            (&orders.log, ORDERS),
            OrderReader::new(opener(&orders.keys)),
            (&system.orders, order_as_logged),
        )
        .await,
    );
    wrong
}

fn opener(keys: &KeyRing) -> Opener {
    Opener::new(Arc::new(keys.clone()), new_sealer())
}

/// A customer without its data key. The topic of keys may have the same key wrapped differently.
fn customer_as_logged(customer: &Customer) -> Customer {
    customer.clone().with_data_key(String::new())
}

/// An order without its customer's data key, which each writer wraps for itself, and without the mark of an erasure,
/// which the log of orders does not contain.
fn order_as_logged(order: &Order) -> Order {
    Order {
        data_key: None,
        customer_erased: false,
        ..order.clone()
    }
}

async fn into_new_store<A: Aggregate + PartialEq, S: ReadStates<A>>(
    system: &System,
    process: &Process,
    (log, topic): (&Arc<dyn Log>, &'static str),
    reader: S,
    (stored, as_compared): (&Database<A>, fn(&A) -> A),
) -> Vec<String> {
    let database: Database<A> =
        Database::new(&system.world, "new", Kind::Replicated, &Faults::default());
    let letters: Arc<dyn DeadLetterStore> = Arc::new(database.clone());
    let aggregates: Arc<dyn AggregateStore<A>> = Arc::new(database.clone());
    let clock = process.shutdown.clock();
    let waiting = Waiting::of(A::COLLECTION, letters, clock);
    let target = Arc::new(RebuildAggregates::new(aggregates, topic, reader, waiting));
    let rebuilt = target
        .rebuild(log, RebuildOrder::default(), &process.shutdown, &mut |_| {})
        .await;
    if let Err(error) = rebuilt {
        return vec![format!("{topic} cannot be read with the new key: {error}")];
    }
    let mut wrong = Vec::new();
    stored.look(|stored| {
        database.look(|new| {
            for (id, row) in &stored.aggregates {
                let stored = as_compared(&row.stored.state);
                let read = new.aggregates.get(id);
                let read = read.map(|row| as_compared(&row.stored.state));
                if read.as_ref() != Some(&stored) {
                    wrong.push(format!(
                        "{topic} read with the new key gives {read:?} of what is stored as {stored:?}"
                    ));
                }
            }
        });
    });
    wrong
}
