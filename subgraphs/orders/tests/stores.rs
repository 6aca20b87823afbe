//! The contract suite of the stores on both kinds of store, with the service's own aggregate.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, missing_docs)]

use chrono::Utc;
use mongodb::bson::{Bson, Document, doc};
use tandem_backends::{Backend, Mongo, eventually};
use tandem_model::aggregate::Aggregate;
use tandem_orders::{
    domain::{Order, OrderItem, OrderStatus, Placement, Product},
    replica::{Replaces, ReplicaStore, mongo::MongoReplica},
};
use tandem_store_contract::{
    Example, Fixture,
    places::{Database, File},
    written::write_of,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One server for all cases; it ends with this process.
static SERVER: OnceCell<Mongo> = OnceCell::const_new();

async fn file() -> Option<File<tempfile::TempDir>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("contract.redb");
    Some(File { path, directory })
}

async fn database() -> Option<Database> {
    if !tandem_backends::available(Backend::Mongod) {
        return None;
    }
    let server = SERVER
        .get_or_init(async || Mongo::start(1).await.unwrap())
        .await;
    Some(Database {
        uri: server.uri(),
        name: format!("contract-{}", Uuid::new_v4()),
    })
}

// An order with generated data, for the suite.
tandem_store_contract::own_aggregate!(Own, Order);

impl Example for Own {
    fn example(id: &str, group: u32) -> Self {
        let placement = Placement {
            customer_id: format!("customer-{group}"),
            items: vec![OrderItem {
                product: Product {
                    guid: "p-1".to_owned(),
                    title: "Hammer — ü".to_owned(),
                    description: None,
                    price: "12.50".parse().unwrap(),
                },
                quantity: 2,
            }],
            ship_to: None,
        };
        let mut order = Order::place(id.to_owned(), placement, Utc::now()).unwrap();
        order.status = status(group);
        Self(order)
    }

    fn changed(&self, group: u32) -> Self {
        let mut order = Self::example(&self.0.id, group).0;
        order.revision = self.0.revision + 1;
        order.cancellation_reason = Some(format!("changed to revision {}", order.revision));
        Self(order)
    }
}

/// A different status for each group of the suite.
fn status(group: u32) -> OrderStatus {
    let all = [
        OrderStatus::Placed,
        OrderStatus::Confirmed,
        OrderStatus::Shipped,
        OrderStatus::Delivered,
        OrderStatus::Cancelled,
    ];
    all[usize::try_from(group / 10 * 3 + group % 10).unwrap() % all.len()]
}

mod embedded {
    use super::*;
    tandem_store_contract::store_contract!(Own, file());
}

mod mongo {
    use super::*;
    tandem_store_contract::store_contract!(Own, database());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mongodb_prices_are_decimal128_and_times_are_dates() {
    let Some(database) = database().await else {
        return;
    };
    let fixture: &dyn Fixture<Own> = &database;
    let store = fixture.aggregates().await;
    let order = Own::example("native", 1);
    store.write(&write_of(&order, 1, None)).await.unwrap();
    let documents = database.store().await;
    let stored = documents
        .database()
        .collection::<Document>(Own::COLLECTION)
        .find_one(doc! { "_id": "native" })
        .await
        .unwrap()
        .unwrap();
    let state = stored.get_document("state").unwrap();
    let decimal = |value: Option<&Bson>| match value {
        Some(Bson::Decimal128(value)) => value.to_string(),
        other => panic!("not a Decimal128: {other:?}"),
    };
    assert_eq!(decimal(state.get("total")), "25.00");
    let items = state.get_array("items").unwrap();
    let product = items[0]
        .as_document()
        .unwrap()
        .get_document("product")
        .unwrap();
    assert_eq!(decimal(product.get("price")), "12.50");
    for time in ["placedAt", "updatedAt"] {
        assert!(
            matches!(state.get(time), Some(Bson::DateTime(_))),
            "{time}: {state:#?}"
        );
    }
    let read = store.get_many(&["native".to_owned()]).await.unwrap();
    assert_eq!(read[0].as_ref().unwrap().state, order);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mongodb_the_times_of_the_replica_are_dates() {
    let Some(database) = database().await else {
        return;
    };
    let replica = MongoReplica::new(database.store().await);
    let customer = tandem_orders::replica::contract::customer("c-1", 1);
    replica.upsert(&[customer], Replaces::Older).await.unwrap();
    let documents = database.store().await;
    let stored = documents
        .database()
        .collection::<Document>(tandem_orders::replica::COLLECTION)
        .find_one(doc! { "_id": "c-1" })
        .await
        .unwrap()
        .unwrap();
    for time in ["changedAt", "replicatedAt"] {
        assert!(
            matches!(stored.get(time), Some(Bson::DateTime(_))),
            "{time}: {stored:#?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mongodb_what_is_shown_before_a_crash_is_not_taken_for_kept_and_what_is_kept_survives_one()
 {
    tandem_backends::require!(mongod);
    let server = Mongo::start(1).await.unwrap();
    let database = Database {
        uri: server.uri(),
        name: "shown".to_owned(),
    };
    let crash = async || {
        server.kill(0).unwrap();
        server.start_again(0).await.unwrap();
    };
    let replica = MongoReplica::new(database.store().await);
    let customer = tandem_orders::replica::contract::customer("c-1", 1);
    let shown = replica.apply_early(std::slice::from_ref(&customer)).await;
    let before = shown.unwrap().unwrap();
    crash().await;
    let mut is_kept = None;
    eventually("the server answers again", async || {
        is_kept = replica.confirm_durable(&before).await.ok();
        is_kept.is_some()
    })
    .await;
    assert_eq!(is_kept, Some(false));

    let shown = replica.apply_early(std::slice::from_ref(&customer)).await;
    let after = shown.unwrap().unwrap();
    assert_ne!(before, after);
    assert!(replica.confirm_durable(&after).await.unwrap());
    crash().await;
    let ids = [customer.id.clone()];
    let mut read = None;
    eventually("the server answers again", async || {
        read = replica.get_many(&ids).await.ok();
        read.is_some()
    })
    .await;
    assert_eq!(read, Some(vec![Some(customer)]));
}
