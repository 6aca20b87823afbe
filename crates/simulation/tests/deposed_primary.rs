//! A deposed primary that does not know that it is deposed: what it shows and accepts, and that a replacement of the
//! sealing key concludes nothing from it.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use tandem_assembly::admin::rotation::{KeyRotation, Rewraps};
use tandem_event_path::{
    data_keys::DataKey,
    sealing::Sealer,
    store::{AggregateStore, ReadBarrier, Registry},
};
use tandem_model::values::Timestamp;
use tandem_orders::{
    domain::{Order, OrderItem, Placement, Product},
    replica::{Contact, Name, Replaces, ReplicaCustomer, ReplicaStore},
    rotation::{RewrapOrders, RewrapReplica},
};
use tandem_simulation::{
    faults::Faults,
    process::{Process, Wrong},
    store::{Database, Kind},
    world::World,
};

/// How long the old primary does not know that it is deposed.
const LINGERS: Duration = Duration::from_secs(10);
/// Longer than anything takes here that is not blocked.
const MOMENT: Duration = Duration::from_secs(1);
const BEFORE: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [8; 32];

fn database(world: &World) -> Database<Order> {
    Database::new(world, "orders", Kind::Replicated, &Faults::default())
}

/// Deposes the primary. Returns a connection that still reaches it for some seconds, and one that reaches the new
/// primary.
fn deposed(database: &Database<Order>, world: &World) -> (Database<Order>, Database<Order>) {
    database.depose(Duration::ZERO, LINGERS);
    let later = world.elapsed() + 5_000_000_000;
    let all = || (1..200).map(|number| database.connected(number));
    let behind = all().find(|it| it.cut_off_since(later).is_some());
    let beside = all().find(|it| it.cut_off_since(0).is_none());
    (behind.unwrap(), beside.unwrap())
}

fn wrapped_before() -> String {
    DataKey::make(&Sealer::replacing(&BEFORE, &[]), "c1").1
}

fn both_keys() -> Sealer {
    Sealer::replacing(&NEW, &[BEFORE])
}

fn is_new(wrapped: Option<&str>) -> bool {
    let sealer = Sealer::replacing(&NEW, &[]);
    DataKey::rewrap(&sealer, wrapped.unwrap(), "c1") == Ok(None)
}

fn order(world: &World) -> Order {
    let product = Product {
        guid: "g1".to_owned(),
        title: "Tea".to_owned(),
        description: None,
        price: "1.50".parse().unwrap(),
    };
    let placement = Placement {
        customer_id: "c1".to_owned(),
        items: vec![OrderItem {
            product,
            quantity: 1,
        }],
        ship_to: None,
    };
    let process = Process::new("orders", world, &Wrong::by(0));
    let clock = process.shutdown.clock();
    let id = clock.new_id().to_string();
    Order {
        data_key: Some(wrapped_before()),
        ..Order::place(id, placement, clock.now().into()).unwrap()
    }
}

fn customer(revision: i64, data_key: String) -> ReplicaCustomer {
    ReplicaCustomer {
        id: "c1".to_owned(),
        name: Name::default(),
        contact: Contact::default(),
        addresses: Vec::new(),
        revision,
        changed_at: Timestamp::from(std::time::SystemTime::UNIX_EPOCH),
        replicated_at: Timestamp::from(std::time::SystemTime::UNIX_EPOCH),
        data_key: Some(data_key),
        erased: false,
    }
}

#[tokio::test(start_paused = true)]
async fn it_shows_what_it_had_and_acknowledges_nothing_that_changes_anything() {
    let world = World::begin(false);
    let database = database(&world);
    database.note("before", "1").await.unwrap();
    let (behind, beside) = deposed(&database, &world);
    beside.note("after", "1").await.unwrap();
    assert_eq!(beside.recall("after").await.unwrap().as_deref(), Some("1"));
    assert_eq!(behind.recall("before").await.unwrap().as_deref(), Some("1"));
    assert_eq!(behind.recall("after").await.unwrap(), None);
    behind.note("before", "1").await.unwrap();
    assert!(behind.note("lost", "1").await.is_err());
    world.sleep(LINGERS).await;
    assert_eq!(behind.recall("after").await.unwrap().as_deref(), Some("1"));
    assert_eq!(behind.recall("lost").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn behind_a_barrier_nothing_is_read_from_it() {
    let world = World::begin(false);
    let database = database(&world);
    let process = Process::new("orders", &world, &Wrong::by(0));
    let (behind, beside) = deposed(&database, &world);
    beside.note("after", "1").await.unwrap();
    let barrier = ReadBarrier::new(Arc::new(behind.clone()), process.shutdown.clock());
    assert_eq!(behind.recall("after").await.unwrap(), None);
    while barrier.pass().await.is_err() {}
    assert_eq!(behind.recall("after").await.unwrap().as_deref(), Some("1"));
}

#[tokio::test(start_paused = true)]
async fn that_all_is_sealed_anew_is_not_concluded_from_what_it_shows() {
    let world = World::begin(false);
    let database = database(&world);
    let process = Process::new("orders", &world, &Wrong::by(0));
    let (behind, beside) = deposed(&database, &world);
    AggregateStore::restore(&beside, &[order(&world)])
        .await
        .unwrap();
    let parts: Vec<Arc<dyn Rewraps>> = vec![Arc::new(RewrapOrders {
        orders: Arc::new(behind.clone()),
        sealer: both_keys(),
    })];
    let registry: Arc<dyn Registry> = Arc::new(behind);
    let shutdown = process.shutdown.clone();
    let rotation = KeyRotation::new(parts, registry, both_keys(), None, shutdown);
    rotation.begin();
    world.sleep(LINGERS * 3).await;
    let view = rotation.status();
    assert!(view.ended_at.is_some(), "{view:?}");
    assert_eq!(view.rewrapped, 1, "{view:?}");
    let all_new = |db: &tandem_simulation::store::db::Db<Order>| {
        let mut orders = db.aggregates.values();
        orders.all(|row| is_new(row.stored.state.data_key.as_deref()))
    };
    assert!(database.look(all_new));
}

#[tokio::test(start_paused = true)]
async fn what_the_replica_shows_and_may_lose_yet_is_not_taken_for_sealed_anew() {
    let world = World::begin(false);
    let database = database(&world);
    let before = customer(1, wrapped_before());
    database.upsert(&[before], Replaces::Older).await.unwrap();
    world.sleep(MOMENT).await;
    let wrapped = DataKey::rewrap(&both_keys(), &wrapped_before(), "c1").unwrap();
    let anew = customer(2, wrapped.unwrap());
    database.apply_early(&[anew]).await.unwrap();
    let rewrapping = RewrapReplica {
        store: Arc::new(database.clone()),
        sealer: both_keys(),
    };
    rewrapping.rewrap_some(None).await.unwrap();
    database.fail_over(Duration::ZERO);
    let is_kept = database.look(|db| {
        let (held, _) = db.replica.get("c1").unwrap();
        is_new(held.data_key.as_deref())
    });
    assert!(is_kept);
}
