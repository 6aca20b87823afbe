//! The connection, its time limits, and the guarantees of every read and write on it.
#![expect(clippy::disallowed_methods, reason = "it waits for a real server")]

use std::{future::Future, sync::Arc, time::Duration};

use mongodb::{
    Client, Collection, Cursor, Database,
    bson::{self, Document, RawDocument, RawDocumentBuf, doc},
    error::{Error, ErrorKind, WriteFailure},
    options::{
        Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
    },
};
use serde::Serialize;
use tokio::sync::OnceCell;

use super::{ConnectError, away, documents::unwritable, reason::Failures};
use tandem_event_path::store::{PAGE_BYTES, StoreError};

/// The server's time limit for one operation.
pub const SERVER_LIMIT: Duration = Duration::from_secs(5);

/// The time limit for one operation on this side. The driver itself has no limit for a server that keeps a connection
/// open and does not answer.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// The time limit for a ping. It is shorter than a health request waits for its answer.
const PING_LIMIT: Duration = Duration::from_millis(1_500);

/// The time limit for getting a connection, or for finding a suitable server.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Most connections to one server, unless the connection string says otherwise.
const POOL: u32 = 64;

/// One service's database on a server. Clones share the connections.
#[derive(Clone, Debug)]
pub struct MongoStore {
    database: Database,
    /// Known after the server's first answer.
    pub(super) is_replica_set: Arc<OnceCell<bool>>,
    failures: Failures,
}

impl MongoStore {
    /// Sets up the connection without waiting for the server. Must be called in a tokio runtime.
    ///
    /// Pool sizes and time limits in the connection string are kept. Its read and write concerns are not: a majority
    /// must acknowledge a write from its journal, and reads go to the primary and see only such writes.
    ///
    /// # Errors
    /// If the connection string is invalid, or names a `mongodb+srv` host that cannot be resolved now.
    pub async fn connect(uri: &str, database: &str) -> Result<Self, ConnectError> {
        let mut options = ClientOptions::parse(uri).await?;
        options
            .app_name
            .get_or_insert_with(|| format!("tandem-{database}"));
        options.connect_timeout.get_or_insert(CONNECT_LIMIT);
        options
            .server_selection_timeout
            .get_or_insert(CONNECT_LIMIT);
        options.max_pool_size.get_or_insert(POOL);
        options.min_pool_size.get_or_insert(2);
        options
            .max_idle_time
            .get_or_insert(Duration::from_secs(600));
        options.selection_criteria =
            Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
        options.read_concern = Some(ReadConcern::majority());
        let mut concern = WriteConcern::default();
        concern.w = Some(Acknowledgment::Majority);
        concern.journal = Some(true);
        concern.w_timeout = Some(SERVER_LIMIT);
        options.write_concern = Some(concern);
        let failures = Failures::default();
        options.sdam_event_handler = Some(failures.listener());
        let client = Client::with_options(options)?;
        Ok(Self {
            database: client.database(database),
            is_replica_set: Arc::default(),
            failures,
        })
    }

    /// The database, for adapters of a service. Reads and writes through it have the guarantees of [`Self::connect`].
    /// Commands that are run by hand must state their own.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    /// Pings the primary, for 1.5 s at most.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = limited(async { self.database.run_command(doc! { "ping": 1 }).await });
        match tokio::time::timeout(PING_LIMIT, asked).await {
            Ok(answer) => answer.map(drop),
            // The driver would continue to look for a server. What it has seen so far gives the reason.
            Err(_) => Err(StoreError::Unavailable(
                self.failures.sentence().unwrap_or_else(|| {
                    format!(
                        "MongoDB did not answer within {} ms",
                        PING_LIMIT.as_millis()
                    )
                }),
            )),
        }
    }
}

/// The write concern for commands that are run by hand: a majority has the write in its journal, within
/// [`SERVER_LIMIT`].
#[must_use]
pub fn write_concern() -> Document {
    doc! { "w": "majority", "j": true, "wtimeout": milliseconds(SERVER_LIMIT) }
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Runs an operation with the time limit of calls, 8 s. Every call to the server goes through it.
///
/// # Errors
/// The operation's, or [`StoreError::Unavailable`] when the limit is exceeded.
pub async fn limited<T>(
    operation: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_LIMIT, operation)
        .await
        .map_err(|_| {
            StoreError::Unavailable(format!(
                "MongoDB did not answer within {} s",
                CALL_LIMIT.as_secs()
            ))
        })?
        .map_err(away)
}

/// Reads the first `limit` documents of a cursor, each directly from the server's reply, and says whether there may be
/// more. It stops early when the documents have more than [`PAGE_BYTES`] together.
///
/// # Errors
/// The driver's. An error of `read` is the inner result.
pub async fn read_page<C, T>(
    cursor: &mut Cursor<C>,
    limit: usize,
    mut read: impl FnMut(&RawDocument) -> Result<T, StoreError>,
) -> mongodb::error::Result<Result<(Vec<T>, bool), StoreError>> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    while found.len() < limit && bytes <= PAGE_BYTES {
        if !cursor.advance().await? {
            return Ok(Ok((found, false)));
        }
        let document = cursor.current();
        bytes += document.as_bytes().len();
        match read(document) {
            Ok(value) => found.push(value),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok((found, true)))
}

/// How many documents one command inserts.
const INSERTED_AT_ONCE: usize = 500;

/// `DuplicateKey`.
const DUPLICATE_KEY: i32 = 11000;

/// Inserts the documents whose `_id` does not exist yet.
///
/// # Errors
/// If the server does not answer. Some documents may have been inserted then.
pub(super) async fn insert_new<T: Serialize>(
    collection: &Collection<RawDocumentBuf>,
    documents: impl Iterator<Item = T>,
) -> Result<(), StoreError> {
    let documents = documents
        .map(|document| bson::serialize_to_raw_document_buf(&document).map_err(unwritable))
        .collect::<Result<Vec<_>, _>>()?;
    for chunk in documents.chunks(INSERTED_AT_ONCE) {
        let inserting = async {
            match collection.insert_many(chunk).ordered(false).await {
                Err(error) if is_only_duplicates(&error) => Ok(()),
                outcome => outcome.map(drop),
            }
        };
        limited(inserting).await?;
    }
    Ok(())
}

/// Whether a single write failed because a document has the same unique value.
pub(super) fn is_duplicate(error: &Error) -> bool {
    matches!(&*error.kind, ErrorKind::Write(WriteFailure::WriteError(error)) if error.code == DUPLICATE_KEY)
}

fn is_only_duplicates(error: &Error) -> bool {
    let ErrorKind::InsertMany(failure) = &*error.kind else {
        return false;
    };
    failure.write_concern_error.is_none()
        && failure
            .write_errors
            .as_ref()
            .is_some_and(|errors| errors.iter().all(|error| error.code == DUPLICATE_KEY))
}
