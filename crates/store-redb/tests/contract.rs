//! Runs the contract suite of the store ports on the embedded store, with further cases that only a file can show.
#![allow(clippy::disallowed_methods, reason = "tests date what they make")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use redb::{ReadableTableMetadata, TableDefinition};
use tandem_event_path::{
    outbox::Outbox,
    sealing::Sealer,
    store::{
        AggregateStore, ChangeLog, DeadLetterStore, Filter, Outcome, PageRequest, Registry,
        StoreError,
    },
};
use tandem_model::aggregate::Aggregate;
use tandem_store_contract::{Example, Fixture, Sample, written::write_of};
use tandem_store_redb::{
    Codec, Durable, EmbeddedAggregates, EmbeddedChangeLog, EmbeddedDeadLetters, EmbeddedRegistry,
    EmbeddedStore, OpenError,
};
use tempfile::TempDir;

fn codec() -> Codec {
    Codec::sealed(&Sealer::new(&[7; 32]))
}

#[derive(Debug)]
struct File(TempDir);

impl File {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data/contract.redb")
    }

    fn open(&self) -> Arc<EmbeddedStore> {
        EmbeddedStore::open(self.path(), codec()).unwrap()
    }
}

#[async_trait]
impl Fixture<Sample> for File {
    async fn aggregates(&self) -> Arc<dyn AggregateStore<Sample>> {
        Arc::new(EmbeddedAggregates::open(self.open()).await.unwrap())
    }

    async fn change_log(&self) -> Arc<dyn ChangeLog> {
        Arc::new(
            EmbeddedChangeLog::open(self.open(), "sample.changes")
                .await
                .unwrap(),
        )
    }

    async fn dead_letters(&self) -> Arc<dyn DeadLetterStore> {
        Arc::new(EmbeddedDeadLetters::open(self.open()).await.unwrap())
    }

    async fn registry(&self) -> Arc<dyn Registry> {
        Arc::new(EmbeddedRegistry::open(self.open()).await.unwrap())
    }
}

async fn file() -> Option<File> {
    Some(File::new())
}

tandem_store_contract::store_contract!(Sample, file());

#[test]
fn a_file_in_use_is_one_clear_error() {
    let file = File::new();
    let _first = file.open();
    let error = EmbeddedStore::open(file.path(), codec()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let text = error.to_string();
    assert!(
        text.contains("in use by another process") && text.contains("contract.redb"),
        "{text}"
    );
}

#[test]
fn a_directory_that_cannot_be_made_is_one_clear_error() {
    let file = File::new();
    std::fs::write(file.0.path().join("data"), "a file, not a directory").unwrap();
    let error = EmbeddedStore::open(file.path(), codec()).unwrap_err();
    assert!(matches!(error, OpenError::Directory { .. }), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_one_clear_error() {
    let file = File::new();
    std::fs::create_dir_all(file.0.path().join("data")).unwrap();
    std::fs::write(file.path(), "something else entirely".repeat(1000)).unwrap();
    let error = EmbeddedStore::open(file.path(), codec()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("put back a copy"), "{error}");
}

#[test]
fn a_file_that_was_cut_off_is_damaged_and_says_what_to_do() {
    let file = File::new();
    drop(EmbeddedStore::open(file.path(), codec()).unwrap());
    let whole = std::fs::read(file.path()).unwrap();
    std::fs::write(file.path(), &whole[..whole.len() / 3]).unwrap();
    let error = EmbeddedStore::open(file.path(), codec()).unwrap_err();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_write_that_fails_leaves_those_beside_it_alone() {
    const NUMBERS: TableDefinition<u64, u64> = TableDefinition::new("numbers");
    let file = File::new();
    let store = file.open();
    let runs = Arc::new(AtomicUsize::new(0));
    let jobs = (0..100_u64).map(|number| {
        let (store, runs) = (Arc::clone(&store), Arc::clone(&runs));
        async move {
            store
                .write(Durable::Yes, move |transaction| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    transaction.open_table(NUMBERS)?.insert(number, number)?;
                    match number % 10 {
                        3 => Err(StoreError::Corrupt("on purpose".to_owned()).into()),
                        7 => panic!("on purpose"),
                        _ => Ok(number),
                    }
                })
                .await
        }
    });
    for (number, outcome) in futures::future::join_all(jobs)
        .await
        .into_iter()
        .enumerate()
    {
        match number % 10 {
            3 | 7 => assert!(matches!(outcome, Err(StoreError::Corrupt(_)))),
            _ => assert_eq!(outcome.unwrap(), number as u64),
        }
    }
    let kept = store
        .read(|transaction| Ok(transaction.open_table(NUMBERS)?.len()?))
        .await
        .unwrap();
    assert_eq!(kept, 80);
}

#[tokio::test]
async fn clearing_survives_a_clean_end() {
    let file = File::new();
    let store = EmbeddedAggregates::<Sample>::open(file.open())
        .await
        .unwrap();
    assert_eq!(
        store
            .write(&write_of(&Sample::example("1", 1), 1, None))
            .await
            .unwrap(),
        Outcome::Written
    );
    store.clear(vec![("1".to_owned(), 1)]).await.unwrap();
    drop(store);
    let store = EmbeddedAggregates::<Sample>::open(file.open())
        .await
        .unwrap();
    assert_eq!(store.backlog().await.unwrap().events, 0);
}

/// The same aggregates with lists by other fields.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
struct Relisted(Sample);

impl Aggregate for Relisted {
    const NAME: &'static str = Sample::NAME;
    const COLLECTION: &'static str = Sample::COLLECTION;
    const INDEXES: &'static [&'static [&'static str]] = &[&["colour"], &["owner"]];

    fn id(&self) -> &str {
        self.0.id()
    }

    fn revision(&self) -> i64 {
        self.0.revision()
    }

    fn field(&self, name: &str) -> Option<String> {
        self.0.field(name)
    }
}

#[tokio::test]
async fn lists_by_other_fields_are_made_when_the_file_is_opened() {
    let file = File::new();
    let store = EmbeddedAggregates::<Sample>::open(file.open())
        .await
        .unwrap();
    for (id, group) in [("a", 1), ("b", 2), ("c", 1)] {
        assert_eq!(
            store
                .write(&write_of(&Sample::example(id, group), 1, None))
                .await
                .unwrap(),
            Outcome::Written
        );
    }
    drop(store);
    let store = EmbeddedAggregates::<Relisted>::open(file.open())
        .await
        .unwrap();
    for field in ["colour", "owner"] {
        let filter = Filter(vec![(field, Sample::example("x", 1).field(field).unwrap())]);
        let page = store
            .pages(&[PageRequest {
                filter,
                after: None,
                limit: 9,
            }])
            .await
            .unwrap()
            .remove(0);
        assert_eq!(
            page.iter().map(Relisted::id).collect::<Vec<_>>(),
            ["a", "c"]
        );
    }
    let changed = Relisted(Sample::example("a", 1).changed(2));
    let write = write_of(&changed.0, 2, None);
    let write = tandem_event_path::store::Write {
        expected_revision: write.expected_revision,
        state: changed,
        event: write.event,
        idempotency_key: None,
        forget_answers: false,
    };
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let filter = Filter(vec![(
        "colour",
        Sample::example("x", 1).field("colour").unwrap(),
    )]);
    let page = store
        .pages(&[PageRequest {
            filter,
            after: None,
            limit: 9,
        }])
        .await
        .unwrap()
        .remove(0);
    assert_eq!(page.iter().map(Relisted::id).collect::<Vec<_>>(), ["c"]);
}

#[tokio::test]
async fn an_answer_that_a_version_before_kept_is_still_good() {
    const FORMER: TableDefinition<'static, &str, (i64, &str, &[u8])> =
        TableDefinition::new("sample.states/answers");
    const TIMES: TableDefinition<'static, (i64, &str), ()> =
        TableDefinition::new("sample.states/answers/time");
    let file = File::new();
    let embedded = file.open();
    let store = EmbeddedAggregates::<Sample>::open(Arc::clone(&embedded))
        .await
        .unwrap();
    let first = Sample::example("1", 1);
    let write = write_of(&first, 1, None);
    assert_eq!(store.write(&write).await.unwrap(), Outcome::Written);
    let bytes = codec().encode("1", &first).unwrap();
    embedded
        .write(Durable::Yes, move |transaction| {
            let mut answers = transaction.open_table(FORMER)?;
            answers.insert("former", (1, "1", bytes.as_slice()))?;
            transaction.open_table(TIMES)?.insert((1, "former"), ())?;
            Ok(())
        })
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
    let now = chrono::Utc::now();
    let kept = store.keep_answer(&key, &first, now).await.unwrap();
    assert_eq!(kept, Outcome::KeyTaken);
    assert_eq!(store.forget_answers(now).await.unwrap(), 1);
    assert!(store.first_answer(&key).await.unwrap().is_none());
}
