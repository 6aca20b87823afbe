//! Runs the contract suite of the store ports on the simulated store. Apart from its intended faults, it must behave
//! correctly.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;

use async_trait::async_trait;
use tandem_event_path::{
    outbox::Outbox,
    store::{AggregateStore, ChangeLog, DeadLetterStore, Outcome, Registry},
};
use tandem_orders::domain::Order;
use tandem_simulation::{
    faults::Faults,
    store::{Database, Kind},
    world::World,
};
use tandem_store_contract::{Example, Fixture, Sample, written::write_of};

#[derive(Debug)]
struct Simulated(Database<Sample>);

#[async_trait]
impl Fixture<Sample> for Simulated {
    async fn aggregates(&self) -> Arc<dyn AggregateStore<Sample>> {
        Arc::new(self.0.clone())
    }

    async fn change_log(&self) -> Arc<dyn ChangeLog> {
        Arc::new(self.0.clone())
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(self.0.clone())
    }

    async fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(self.0.clone())
    }
}

async fn simulated() -> Option<Simulated> {
    let world = World::immediate();
    let database = Database::new(&world, "simulated", Kind::Replicated, &Faults::default());
    Some(Simulated(database))
}

tandem_store_contract::store_contract!(Sample, simulated());

#[tokio::test]
async fn the_simulated_replica_keeps_the_contract_of_replicas() {
    let world = World::immediate();
    let database = Database::<Order>::new(&world, "orders", Kind::Replicated, &Faults::default());
    tandem_orders::replica::contract::run(Arc::new(database)).await;
}

#[tokio::test]
async fn an_aggregate_without_room_takes_no_change_until_its_events_are_published() {
    let world = World::immediate();
    let database =
        Database::<Sample>::new(&world, "simulated", Kind::Replicated, &Faults::default());
    database.refuse_beyond(1);
    let first = Sample::example("a", 1);
    let change = write_of(&first.changed(1), 1, None);
    let first = write_of(&first, 0, None);
    let written = AggregateStore::write(&database, &first).await.unwrap();
    assert_eq!(written, Outcome::Written);
    let refused = AggregateStore::write(&database, &change).await;
    assert!(refused.is_err(), "{refused:?}");
    let published = vec![("a".to_owned(), 1)];
    Outbox::clear(&database, published).await.unwrap();
    let written = AggregateStore::write(&database, &change).await.unwrap();
    assert_eq!(written, Outcome::Written);
}
