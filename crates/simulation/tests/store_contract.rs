//! The simulated store is held to the contract of the store ports: what it does to people on purpose is all that it does wrong.
#![allow(missing_docs)]

use std::sync::Arc;

use async_trait::async_trait;
use tandem_event_path::store::{AggregateStore, ChangeLog, DeadLetterStore, Registry};
use tandem_orders::domain::Order;
use tandem_simulation::{
    faults::Faults,
    store::{Database, Kind},
    world::World,
};
use tandem_store_contract::{Fixture, Sample};

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
