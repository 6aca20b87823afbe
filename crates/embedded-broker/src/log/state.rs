//! The writer's copy of the file's metadata in memory, and how it is loaded from the file.

use std::{collections::HashMap, path::Path, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableError};
use uuid::Uuid;

use super::{
    failure::Failure,
    producers::Producer,
    settings::TopicSettings,
    tables::{
        BATCHES, CLEANED, CLUSTER, DOOMED, FORMAT, FORMAT_KEY, NUMBERS, OFFSETS, PRODUCERS, STARTS,
        TEXTS, TOPICS, row,
    },
    topics::{Ends, Partition, Topic, Topics},
};
use crate::record_batch::Header;

/// Memory for pages that were read and pages that will be written, in bytes.
const CACHE: usize = 32 * 1024 * 1024;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// It was written by another version.
    #[error(
        "it has format {found}, this version reads format {FORMAT}; start the version that wrote it, or give another folder"
    )]
    Format {
        /// The format of the file.
        found: i64,
    },
    /// Its content is inconsistent.
    #[error("it is damaged: {0}; put back a copy of it")]
    Damaged(String),
    /// It cannot be read or written.
    #[error(transparent)]
    Failure(#[from] Failure),
}

impl From<redb::TransactionError> for Unusable {
    fn from(error: redb::TransactionError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<TableError> for Unusable {
    fn from(error: TableError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<redb::StorageError> for Unusable {
    fn from(error: redb::StorageError) -> Self {
        Self::Failure(error.into())
    }
}

impl From<redb::CommitError> for Unusable {
    fn from(error: redb::CommitError) -> Self {
        Self::Failure(error.into())
    }
}

/// The writer's state in memory. All of it can be loaded from the file again.
#[derive(Debug)]
pub(super) struct State {
    /// The id of the cluster.
    pub(super) cluster: Arc<str>,
    pub(super) topics: Arc<Topics>,
    /// The partitions of all topics by number.
    pub(super) partitions: HashMap<u32, Arc<Partition>>,
    pub(super) producers: HashMap<(u32, i64), Producer>,
}

impl Ends {
    /// The ends of a partition without records.
    pub(super) const EMPTY: Self = Self {
        start: 0,
        end: 0,
        newest: i64::MIN,
        written: 0,
    };
}

/// Opens the file, or creates it. After a crash the file is checked first, which is logged.
pub(crate) fn open_file(path: &Path) -> Result<Database, redb::DatabaseError> {
    let name = path.display().to_string();
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder.set_repair_callback(move |repair| {
        let percent = (repair.progress() * 100.0).round();
        tracing::info!(file = %name, percent, "checking the log: it was not closed cleanly");
    });
    builder.create(path)
}

/// Creates what is missing in the file, and loads the state of the writer.
pub(super) fn load(database: &Database) -> Result<State, Unusable> {
    prepare(database)?;
    let transaction = database.begin_read()?;
    let cluster = transaction
        .open_table(TEXTS)?
        .get(CLUSTER)?
        .map(|row| Arc::from(row.value()))
        .ok_or_else(|| Unusable::Damaged("it names no cluster".to_owned()))?;
    let mut topics = Topics::default();
    let mut partitions = HashMap::new();
    for entry in transaction.open_table(TOPICS)?.iter()? {
        let (name, row) = entry?;
        let (id, numbers, given) = row.value();
        let settings = TopicSettings::from_given(given)
            .map_err(|error| Unusable::Damaged(format!("topic {}: {error}", name.value())))?;
        let mut of_topic = Vec::with_capacity(numbers.len());
        for number in numbers {
            let partition = Arc::new(Partition::new(number, ends(&transaction, number)?));
            partitions.insert(number, Arc::clone(&partition));
            of_topic.push(partition);
        }
        topics.put(Topic {
            name: name.value().into(),
            id: Uuid::from_u128(id),
            settings,
            partitions: of_topic,
        });
    }
    let mut producers = HashMap::new();
    for entry in transaction.open_table(PRODUCERS)?.iter()? {
        let (key, row) = entry?;
        let producer = Producer::from_row(row.value())
            .ok_or_else(|| Unusable::Damaged("a producer's row is cut off".to_owned()))?;
        producers.insert(key.value(), producer);
    }
    Ok(State {
        cluster,
        topics: Arc::new(topics),
        partitions,
        producers,
    })
}

/// Creates the tables of a new file. Refuses a file with another format.
#[expect(clippy::disallowed_methods, reason = "an id that decides nothing")]
fn prepare(database: &Database) -> Result<(), Unusable> {
    let format = match database.begin_read()?.open_table(NUMBERS) {
        Ok(numbers) => numbers.get(FORMAT_KEY)?.map(|row| row.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match format {
        Some(FORMAT) => return Ok(()),
        Some(found) => return Err(Unusable::Format { found }),
        None => {}
    }
    let transaction = database.begin_write()?;
    {
        transaction.open_table(TOPICS)?;
        transaction.open_table(BATCHES)?;
        transaction.open_table(STARTS)?;
        transaction.open_table(DOOMED)?;
        transaction.open_table(CLEANED)?;
        transaction.open_table(PRODUCERS)?;
        transaction.open_table(OFFSETS)?;
        // The same form as Kafka's own tools generate.
        let cluster = URL_SAFE_NO_PAD.encode(Uuid::new_v4().as_bytes());
        transaction
            .open_table(TEXTS)?
            .insert(CLUSTER, cluster.as_str())?;
        transaction
            .open_table(NUMBERS)?
            .insert(FORMAT_KEY, FORMAT)?;
    }
    transaction.commit()?;
    Ok(())
}

fn ends(transaction: &ReadTransaction, number: u32) -> Result<Ends, Unusable> {
    let start = transaction
        .open_table(STARTS)?
        .get(number)?
        .map_or(0, |row| row.value());
    let empty = Ends {
        start,
        end: start,
        ..Ends::EMPTY
    };
    let batches = transaction.open_table(BATCHES)?;
    let mut range = batches.range((number, i64::MIN)..=(number, i64::MAX))?;
    let Some(last) = range.next_back() else {
        return Ok(empty);
    };
    let (_, row) = last?;
    let header = Header::of(row::batch(row.value()))
        .ok_or_else(|| Unusable::Damaged("a batch is cut off".to_owned()))?;
    Ok(Ends {
        end: (header.last_offset() + 1).max(start),
        newest: row::newest(row.value()),
        ..empty
    })
}
