//! The MongoDB store is held to the contract of the store ports on a real server, and to what only a server can show.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::Utc;
use mongodb::bson::{Bson, Document, doc, spec::BinarySubtype};
use tandem_backends::{Backend, Mongo, free_port};
use tandem_kit::{
    aggregate::Aggregate,
    outbox::Outbox,
    store::{
        AggregateStore, ChangeLog, DeadLetterStore, Outcome, StoreError,
        contract::{
            Example, Fixture, Sample,
            aggregates::{write_of, writers_race},
        },
        mongo::{ConnectError, MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoStore},
    },
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One server for all cases; it ends with this process.
static SERVER: OnceCell<Mongo> = OnceCell::const_new();

/// A database of its own.
#[derive(Debug)]
struct Database {
    uri: String,
    name: String,
}

impl Database {
    fn new(uri: String) -> Self {
        Self {
            uri,
            name: format!("contract-{}", Uuid::new_v4()),
        }
    }

    async fn store(&self) -> MongoStore {
        MongoStore::connect(&self.uri, &self.name).await.unwrap()
    }

    async fn open(&self) -> MongoAggregates<Sample> {
        let store = MongoAggregates::new(self.store().await);
        store.prepare().await.unwrap();
        store
    }
}

#[async_trait]
impl Fixture<Sample> for Database {
    async fn aggregates(&self) -> Arc<dyn AggregateStore<Sample>> {
        Arc::new(self.open().await)
    }

    async fn change_log(&self) -> Arc<dyn ChangeLog> {
        let log = MongoChangeLog::new(&self.store().await, "sample.changes");
        log.prepare().await.unwrap();
        Arc::new(log)
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        let letters = MongoDeadLetters::new(&self.store().await, "dead.letters");
        letters.prepare().await.unwrap();
        Arc::new(letters)
    }
}

async fn database() -> Option<Database> {
    if !tandem_backends::available(Backend::Mongod) {
        return None;
    }
    let server = SERVER
        .get_or_init(async || Mongo::start(1).await.unwrap())
        .await;
    Some(Database::new(server.uri()))
}

tandem_kit::store_contract!(Sample, database());

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_writing_one_aggregate_leave_no_gap_and_no_fork() {
    let Some(database) = database().await else {
        return;
    };
    let one: Arc<dyn AggregateStore<Sample>> = Arc::new(database.open().await);
    let other: Arc<dyn AggregateStore<Sample>> = Arc::new(database.open().await);
    let handles = [&one, &other, &one, &other].map(Arc::clone);
    writers_race(&handles, 20).await;
}

#[tokio::test]
async fn documents_hold_native_dates_and_binary_ids() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    let write = write_of(&Sample::example("1", 1), 1, Some("key"));
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let documents = database
        .store()
        .await
        .database()
        .collection::<Document>(Sample::COLLECTION);
    let document = documents
        .find_one(doc! { "_id": "1" })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(document.get_i64("revision").unwrap(), 1);
    assert_eq!(
        document
            .get_document("state")
            .unwrap()
            .get_str("owner")
            .unwrap(),
        "owner 1"
    );
    assert!(matches!(
        document.get("oldestPending"),
        Some(Bson::DateTime(_))
    ));
    let pending = document.get_array("pending").unwrap()[0]
        .as_document()
        .unwrap();
    assert!(matches!(pending.get("recordedAt"), Some(Bson::DateTime(_))));
    let event = pending.get_document("event").unwrap();
    assert!(matches!(event.get("time"), Some(Bson::DateTime(_))));
    assert!(matches!(event.get("id"), Some(Bson::Binary(id)) if id.subtype == BinarySubtype::Uuid));
    let answer = document.get_array("answers").unwrap()[0]
        .as_document()
        .unwrap();
    assert!(matches!(answer.get("at"), Some(Bson::DateTime(_))));
}

#[tokio::test]
async fn what_the_relay_and_the_lists_ask_is_answered_by_an_index() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    for number in 0..50 {
        let state = Sample::example(&format!("n{number}"), number % 5);
        assert_eq!(
            store.write(&write_of(&state, 1, None)).await.unwrap(),
            Outcome::Written
        );
    }
    let server = database.store().await;
    let explain = async |command: Document| {
        let command = doc! { "explain": command, "verbosity": "executionStats" };
        let plan = server.database().run_command(command).await.unwrap();
        plan.get_document("executionStats").unwrap().clone()
    };
    let examined = |stats: &Document, what: &str| stats.get_i32(what).unwrap();
    let list = doc! {
        "aggregate": Sample::COLLECTION, "cursor": {},
        "pipeline": [{ "$match": { "state.owner": "owner 1" } }, { "$sort": { "_id": 1 } }, { "$limit": 3 }],
    };
    assert_eq!(examined(&explain(list).await, "totalDocsExamined"), 3);
    let oldest = doc! {
        "find": Sample::COLLECTION, "hint": "outbox", "limit": 1,
        "filter": { "_id": { "$gt": "" }, "oldestPending": { "$gt": mongodb::bson::DateTime::MIN } },
        "projection": { "_id": 0, "oldestPending": 1, "waiting": 1 },
    };
    assert_eq!(
        examined(&explain(oldest).await, "totalDocsExamined"),
        0,
        "the index alone must do"
    );
    let none = doc! {
        "find": Sample::COLLECTION, "hint": "outbox", "sort": { "_id": 1 }, "limit": 3,
        "filter": { "_id": { "$gt": "" }, "oldestPending": { "$lte": mongodb::bson::DateTime::from_millis(0) } },
    };
    assert_eq!(examined(&explain(none).await, "totalDocsExamined"), 0);
    let key = doc! { "find": Sample::COLLECTION, "filter": { "answers.key": "absent" } };
    assert_eq!(examined(&explain(key).await, "totalDocsExamined"), 0);
}

#[tokio::test]
async fn preparing_twice_and_at_once_does_no_harm() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    let (one, other) = tokio::join!(store.prepare(), store.prepare());
    one.unwrap();
    other.unwrap();
}

#[tokio::test]
async fn connecting_waits_for_nobody_and_calls_say_that_the_server_is_away() {
    let closed = free_port().unwrap();
    let uri = format!("mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=200");
    let started = Instant::now();
    let store = MongoStore::connect(&uri, "away").await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(1));
    assert!(matches!(store.ping().await, Err(StoreError::Away(_))));
    let aggregates = MongoAggregates::<Sample>::new(store);
    assert!(matches!(
        aggregates.prepare().await,
        Err(StoreError::Away(_))
    ));
    assert!(matches!(
        aggregates.get_many(&["1".to_owned()]).await,
        Err(StoreError::Away(_))
    ));
    let write = write_of(&Sample::example("1", 1), 1, None);
    assert!(matches!(
        aggregates.write(&write).await,
        Err(StoreError::Away(_))
    ));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "a write is given up after about 10 s"
    );
}

#[tokio::test]
async fn a_connection_string_that_does_not_fit_is_one_clear_error() {
    let error = MongoStore::connect("mongo://somewhere", "x")
        .await
        .unwrap_err();
    assert!(matches!(error, ConnectError::Uri(_)));
    assert!(error.to_string().contains("mongodb://host"), "{error}");
}

/// Writers go on while the primary is killed: what was acknowledged is there, once, and the outbox has no gap.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_the_death_of_the_primary() {
    tandem_backends::require!(mongod);
    let _turn = tandem_backends::solo().await.unwrap();
    let server = Mongo::start(3).await.unwrap();
    let database = Database::new(server.uri());
    let store = Arc::new(database.open().await);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|number| {
            let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
            tokio::spawn(async move {
                let id = format!("n{number}");
                let mut acknowledged: BTreeMap<i64, Uuid> = BTreeMap::new();
                let (mut away, mut state) = (0, None::<Sample>);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) && acknowledged.len() < 900 {
                    let next = match &state {
                        Some(state) => state.changed(1),
                        None => match store.get_many(std::slice::from_ref(&id)).await {
                            Ok(mut stored) => match stored.remove(0) {
                                Some(stored) => stored.state.changed(1),
                                None => Sample::example(&id, 1),
                            },
                            Err(_) => continue,
                        },
                    };
                    let write = write_of(
                        &next,
                        Utc::now().timestamp_millis() - 1_700_000_000_000,
                        None,
                    );
                    let event = write.event.event.id;
                    match store.write(&write).await {
                        Ok(Outcome::Written) => {
                            acknowledged.insert(next.revision(), event);
                            state = Some(next);
                        }
                        Ok(outcome) => {
                            // The only writer of this aggregate: it can be stale only after an answer that it was not told.
                            assert!(
                                away > 0,
                                "{id} was told {outcome:?} of revision {}",
                                next.revision()
                            );
                            state = None;
                        }
                        Err(_) => {
                            away += 1;
                            state = None;
                        }
                    }
                }
                (id, acknowledged, away)
            })
        })
        .collect();
    let events = async || store.backlog().await.map_or(0, |backlog| backlog.events);
    let reach = async |wanted: u64| {
        let started = Instant::now();
        while events().await < wanted {
            assert!(started.elapsed() < Duration::from_secs(60), "no progress");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    reach(200).await;
    let dead = server.kill_primary().await.unwrap();
    let at_death = events().await;
    reach(at_death.max(200) + 300).await;
    server.start_again(dead).await.unwrap();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    for writer in writers {
        let (id, acknowledged, away) = writer.await.unwrap();
        let stored = store
            .get_many(std::slice::from_ref(&id))
            .await
            .unwrap()
            .remove(0)
            .unwrap();
        let revisions: Vec<i64> = stored.pending.iter().map(|event| event.revision).collect();
        assert_eq!(
            revisions,
            (1..=stored.state.revision()).collect::<Vec<_>>(),
            "{id} has a gap"
        );
        let kept: BTreeMap<i64, Uuid> = stored
            .pending
            .iter()
            .map(|event| (event.revision, event.event.id))
            .collect();
        for (revision, event) in &acknowledged {
            assert_eq!(
                kept.get(revision),
                Some(event),
                "{id} lost acknowledged revision {revision}"
            );
        }
        assert!(
            kept.len() <= acknowledged.len() + away,
            "{id} holds what nobody asked for"
        );
    }
}
