//! Runs the contract suite of the store ports on a real MongoDB server, with further cases that only a server can show.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
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
use tandem_event_path::{
    outbox::Outbox,
    store::{AggregateStore, ChangeLog, DeadLetterStore, Outcome, Registry, StoreError},
};
use tandem_model::aggregate::Aggregate;
use tandem_store_contract::{
    Example, Fixture, Sample,
    aggregates::writers_race,
    written::{recorded_now, write_of},
};
use tandem_store_mongodb::{
    ConnectError, MongoAggregates, MongoChangeLog, MongoDeadLetters, MongoRegistry, MongoStore,
};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// One server for all cases. It ends with this process.
static SERVER: OnceCell<Mongo> = OnceCell::const_new();

/// A separate database for a test.
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

    async fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(MongoRegistry::new(&self.store().await))
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

tandem_store_contract::store_contract!(Sample, database());

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
    assert!(matches!(
        store.ping().await,
        Err(StoreError::Unavailable(_))
    ));
    let aggregates = MongoAggregates::<Sample>::new(store);
    assert!(matches!(
        aggregates.prepare().await,
        Err(StoreError::Unavailable(_))
    ));
    assert!(matches!(
        aggregates.get_many(&["1".to_owned()]).await,
        Err(StoreError::Unavailable(_))
    ));
    let write = write_of(&Sample::example("1", 1), 1, None);
    assert!(matches!(
        aggregates.write(&write).await,
        Err(StoreError::Unavailable(_))
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

/// Writers continue while the primary is killed. Acknowledged writes are there, once, and the outbox has no gap.
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
                    let write = write_of(&next, recorded_now(), None);
                    let event = write.event.event.id;
                    match store.write(&write).await {
                        Ok(Outcome::Written) => {
                            acknowledged.insert(next.revision(), event);
                            state = Some(next);
                        }
                        Ok(outcome) => {
                            // This is the only writer of the aggregate, so it can be stale only after an answer that
                            // got lost.
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

#[tokio::test]
async fn kept_answers_do_not_fill_the_document() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    let large = |revision: i64| -> Sample {
        let state = serde_json::json!({
            "id": "1", "revision": revision, "owner": "owner 1", "colour": null,
            "note": "x".repeat(120_000), "parts": [],
        });
        serde_json::from_value(state).unwrap()
    };
    for revision in 1..=160 {
        let write = write_of(&large(revision), revision, Some(&format!("key {revision}")));
        assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
        store.clear(vec![("1".to_owned(), revision)]).await.unwrap();
    }
    let server = database.store().await;
    let documents = server.database().collection::<Document>(Sample::COLLECTION);
    let document = documents.find_one(doc! {}).await.unwrap().unwrap();
    let bytes = mongodb::bson::serialize_to_vec(&document).unwrap().len();
    assert!(bytes < 300_000, "{bytes} bytes");
    for revision in [1, 80, 160] {
        let key = write_of(&large(1), 1, Some(&format!("key {revision}"))).idempotency_key;
        let first = store.first_answer(&key.unwrap()).await.unwrap().unwrap();
        assert_eq!(first.state.revision(), revision);
    }
    let beside = server
        .database()
        .collection::<Document>(&format!("{}.answers", Sample::COLLECTION));
    assert_eq!(beside.count_documents(doc! {}).await.unwrap(), 160);
    let mut lives = Vec::new();
    let mut indexes = beside.list_indexes().await.unwrap();
    while indexes.advance().await.unwrap() {
        let index = indexes.deserialize_current().unwrap();
        lives.extend(index.options.and_then(|options| options.expire_after));
    }
    assert_eq!(lives, [Duration::from_secs(25 * 3_600)]);
    // An aggregate's answers are removed with it.
    let seen = store.published(None, 10).await.unwrap();
    assert_eq!(store.remove(&seen).await.unwrap(), 1);
    assert_eq!(beside.count_documents(doc! {}).await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_a_version_before_kept_is_still_good() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    let first = Sample::example("1", 1);
    let write = write_of(&first, 1, None);
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let documents = database
        .store()
        .await
        .database()
        .collection::<Document>(Sample::COLLECTION);
    let state = mongodb::bson::serialize_to_bson(&first).unwrap();
    let answer =
        doc! { "key": "former", "at": mongodb::bson::DateTime::from_millis(1), "state": state };
    documents
        .update_one(
            doc! { "_id": "1" },
            doc! { "$set": { "answers": [answer] } },
        )
        .await
        .unwrap();
    let key = write_of(&first, 1, Some("new")).idempotency_key.unwrap();
    let key = key.also_known_as("former".to_owned());
    let found = store.first_answer(&key).await.unwrap().unwrap();
    assert_eq!((found.state, found.input), (first.clone(), None));
    for state in [Sample::example("2", 1), first.changed(1)] {
        let mut write = write_of(&state, 2, None);
        write.idempotency_key = Some(key.clone());
        assert_eq!(store.write(&write).await.unwrap(), Outcome::KeyTaken);
    }
    let kept = store.keep_answer(&key, &first, Utc::now()).await.unwrap();
    assert_eq!(kept, Outcome::KeyTaken);
    assert_eq!(store.forget_answers(Utc::now()).await.unwrap(), 1);
    assert!(store.first_answer(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn answers_that_a_crash_left_to_be_forgotten_are_removed_with_the_next_look() {
    let Some(database) = database().await else {
        return;
    };
    let store = database.open().await;
    let first = Sample::example("1", 1);
    let write = write_of(&first, 1, Some("one"));
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let server = database.store().await;
    let documents = server.database().collection::<Document>(Sample::COLLECTION);
    let noted = doc! { "forgetAnswersBefore": mongodb::bson::DateTime::now() };
    documents
        .update_one(doc! {}, doc! { "$set": noted, "$unset": { "answers": "" } })
        .await
        .unwrap();
    let mut later = write_of(&first.changed(1), 2, Some("two"));
    later.event.recorded_at = Utc::now();
    assert_eq!(store.write(&later).await.unwrap(), Outcome::Written);
    store
        .forget_answers(Utc::now() - chrono::TimeDelta::hours(24))
        .await
        .unwrap();
    let beside = server
        .database()
        .collection::<Document>(&format!("{}.answers", Sample::COLLECTION));
    assert_eq!(beside.count_documents(doc! {}).await.unwrap(), 1);
    assert!(
        store
            .first_answer(&later.idempotency_key.unwrap())
            .await
            .unwrap()
            .is_some()
    );
    let document = documents.find_one(doc! {}).await.unwrap().unwrap();
    assert!(document.get("forgetAnswersBefore").is_none());
}
