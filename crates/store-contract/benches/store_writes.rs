//! Compares writes of aggregates with writes of the same bytes to the bare databases, in the same run.
//!
//! `cargo bench -p tandem-kit --bench store_writes`. MongoDB's part runs where `mongod` is installed
//! (`tests/backends/install.sh`).
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use mongodb::bson::{Document, doc, serialize_to_document};
use redb::{Database, TableDefinition};
use tandem_backends::{Backend, Mongo};
use tandem_event_path::{
    sealing::Sealer,
    store::{AggregateStore, Outcome},
};
use tandem_store_contract::{Example, Sample, written::write_of};
use tandem_store_mongodb::{MongoAggregates, MongoStore};
use tandem_store_redb::{Codec, EmbeddedAggregates, EmbeddedStore};
use uuid::Uuid;

/// The floor and the store are measured in alternating turns of this length, because a disk's speed varies over time.
const TURN: Duration = Duration::from_millis(500);
/// Turns of each. The median of the ratios is printed.
const TURNS: usize = 7;

type Store = Arc<dyn AggregateStore<Sample>>;

/// Runs `step` with this many in flight, and returns how many completed per second. Each run gets a unique id.
async fn rate<F: Future<Output = ()>>(in_flight: usize, step: impl Fn(String) -> F) -> f64 {
    let started = Instant::now();
    let workers = (0..in_flight).map(async |_| {
        let mut done = 0.0;
        while started.elapsed() < TURN {
            step(Uuid::now_v7().to_string()).await;
            done += 1.0;
        }
        done
    });
    let done: f64 = join_all(workers).await.into_iter().sum();
    done / started.elapsed().as_secs_f64()
}

/// Measures the store and its floor in turns, and prints their ratio.
async fn compare<F: Future<Output = ()>>(
    name: &str,
    store: &Store,
    in_flight: usize,
    floor_in_flight: usize,
    floor: impl Fn(String) -> F,
) {
    let mut ratios = Vec::new();
    let (mut writes, mut floors) = (0.0, 0.0);
    for _ in 0..TURNS {
        let bare = rate(floor_in_flight, &floor).await;
        let ours = rate(in_flight, async |id| {
            let write = write_of(&Sample::example(&id, 1), 1, None);
            assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
        })
        .await;
        ratios.push(ours / bare);
        writes += ours / TURNS as f64;
        floors += bare / TURNS as f64;
    }
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios[TURNS / 2];
    println!(
        "{name}, {in_flight} in flight: {ratio:.2} times the floor ({writes:.0} against {floors:.0} a second)"
    );
}

/// The floor of the embedded store: one durable commit for each write, with the same state and event.
async fn embedded() {
    const STATES: TableDefinition<&str, &[u8]> = TableDefinition::new("states");
    const EVENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("events");
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let bare = Database::create(directory.path().join("bare.redb")).unwrap();
    let file = EmbeddedStore::open(
        directory.path().join("store.redb"),
        Codec::sealed(&Sealer::new(&[7; 32])),
    )
    .unwrap();
    let store: Store = Arc::new(EmbeddedAggregates::open(file).await.unwrap());
    for in_flight in [1, 16, 64] {
        compare("embedded", &store, in_flight, 1, async |id| {
            let write = write_of(&Sample::example(&id, 1), 1, None);
            let state = serde_json::to_vec(&write.state).unwrap();
            let event = serde_json::to_vec(&write.event).unwrap();
            let commit = bare.begin_write().unwrap();
            let key = id.as_str();
            commit
                .open_table(STATES)
                .unwrap()
                .insert(key, state.as_slice())
                .unwrap();
            commit
                .open_table(EVENTS)
                .unwrap()
                .insert(key, event.as_slice())
                .unwrap();
            commit.commit().unwrap();
        })
        .await;
    }
}

/// The floor of MongoDB: one findAndModify for each write, with as many in flight.
async fn mongo() {
    if !tandem_backends::available(Backend::Mongod) {
        return;
    }
    let server = Mongo::start(1).await.unwrap();
    let connected = MongoStore::connect(&server.uri(), "bench").await.unwrap();
    let aggregates = MongoAggregates::new(connected.clone());
    aggregates.prepare().await.unwrap();
    let store: Store = Arc::new(aggregates);
    let bare = connected.database().collection::<Document>("bare");
    for in_flight in [1, 16, 64] {
        compare("MongoDB", &store, in_flight, in_flight, async |id| {
            let write = write_of(&Sample::example(&id, 1), 1, None);
            let update = doc! {
                "$set": { "revision": 1_i64, "state": serialize_to_document(&write.state).unwrap() },
                "$push": { "pending": serialize_to_document(&write.event).unwrap() },
            };
            bare.find_one_and_update(doc! { "_id": id, "revision": 0_i64 }, update).upsert(true).await.unwrap();
        })
        .await;
    }
}

#[tokio::main]
async fn main() {
    embedded().await;
    mongo().await;
}
