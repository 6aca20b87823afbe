//! Writes of aggregates against what the bare databases do with the same bytes in the same run.
//!
//! `cargo bench -p tandem-kit --bench store_writes`. MongoDB's part runs where `mongod` is installed
//! (`tests/backends/install.sh`).
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mongodb::bson::{Document, doc, serialize_to_document};
use redb::{Database, TableDefinition};
use tandem_backends::{Backend, Mongo};
use tandem_kit::{
    outbox::PendingEvent,
    store::{
        AggregateStore, Outcome,
        contract::{Example, Sample, aggregates::write_of},
        embedded::{EmbeddedAggregates, EmbeddedStore},
        mongo::{MongoAggregates, MongoStore},
    },
};

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(3);

type Store = Arc<dyn AggregateStore<Sample>>;

/// How many of `step` a second, with so many in flight. A step is given a number that no other has.
async fn rate<F: Future<Output = ()> + Send>(
    in_flight: usize,
    step: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
) -> f64 {
    let started = Instant::now();
    let workers = (0..in_flight).map(|worker| {
        let step = step.clone();
        async move {
            let mut done = 0_usize;
            while started.elapsed() < MEASURED {
                step(worker + done * in_flight).await;
                done += 1;
            }
            done
        }
    });
    let done: usize = join_all(workers).await.into_iter().sum();
    done as f64 / started.elapsed().as_secs_f64()
}

async fn write_rate(store: &Store, in_flight: usize) -> f64 {
    let store = Arc::clone(store);
    rate(in_flight, move |number| {
        let store = Arc::clone(&store);
        async move {
            let write = write_of(
                &Sample::example(&format!("{in_flight}-{number}"), 1),
                1,
                None,
            );
            assert_eq!(store.write(write).await.unwrap(), Outcome::Written);
        }
    })
    .await
}

fn report(store: &str, in_flight: usize, writes: f64, floor_name: &str, floor: f64) {
    println!(
        "{store:9} {in_flight:3} in flight: {writes:8.0} writes/s, {:5.2} times {floor:.0} {floor_name}/s",
        writes / floor
    );
}

async fn embedded() {
    const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("states");
    const EVENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("events");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bare = Arc::new(Database::create(directory.path().join("bare.redb")).unwrap());
    let floor = rate(1, move |number| {
        let bare = Arc::clone(&bare);
        async move {
            let id = format!("bare-{number}");
            let write = write_of(&Sample::example(&id, 1), 1, None);
            let state = serde_json::to_vec(&write.state).unwrap();
            let event = serde_json::to_vec(&write.event).unwrap();
            let transaction = bare.begin_write().unwrap();
            transaction
                .open_table(STATES)
                .unwrap()
                .insert(id.as_str(), state.as_slice())
                .unwrap();
            transaction
                .open_table(EVENTS)
                .unwrap()
                .insert(id.as_str(), event.as_slice())
                .unwrap();
            transaction.commit().unwrap();
        }
    })
    .await;
    let file = EmbeddedStore::open(directory.path().join("store.redb")).unwrap();
    let store: Store = Arc::new(EmbeddedAggregates::open(file).await.unwrap());
    for in_flight in [1, 16, 64] {
        let writes = write_rate(&store, in_flight).await;
        report("embedded", in_flight, writes, "bare commits", floor);
    }
}

async fn mongo() {
    if !tandem_backends::available(Backend::Mongod) {
        return;
    }
    let server = Mongo::start(1).await.unwrap();
    let connected = MongoStore::connect(&server.uri(), "bench").await.unwrap();
    let aggregates = MongoAggregates::new(connected.clone());
    aggregates.prepare().await.unwrap();
    let store: Store = Arc::new(aggregates);
    for in_flight in [1, 16, 64] {
        let bare = connected.database().collection::<Document>("bare");
        let floor = rate(in_flight, move |number| {
            let bare = bare.clone();
            async move {
                let write = write_of(&Sample::example(&format!("{in_flight}-{number}"), 1), 1, None);
                let event: PendingEvent = write.event;
                let update = doc! {
                    "$set": { "revision": 1_i64, "state": serialize_to_document(&write.state).unwrap() },
                    "$push": { "pending": serialize_to_document(&event).unwrap() },
                };
                bare.find_one_and_update(doc! { "_id": &event.key, "revision": 0_i64 }, update)
                    .upsert(true)
                    .await
                    .unwrap();
            }
        })
        .await;
        let writes = write_rate(&store, in_flight).await;
        report("MongoDB", in_flight, writes, "findAndModify", floor);
    }
}

#[tokio::main]
async fn main() {
    embedded().await;
    mongo().await;
}
