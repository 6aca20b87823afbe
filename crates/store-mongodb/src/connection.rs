//! The connection: its limits, and the promises that every read and write on it makes.
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

/// How long the server works on one operation.
pub const SERVER_LIMIT: Duration = Duration::from_secs(5);

/// How long one operation may take as seen from here. The driver has no limit of its own for a server that keeps a
/// connection open and says nothing.
const CALL_LIMIT: Duration = Duration::from_secs(8);

/// How long a sign of life may take: less than who asks for health waits for the answer.
const PING_LIMIT: Duration = Duration::from_millis(1_500);

/// How long to wait for a connection, or for a server that is fit for the operation.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connections to one server, unless the connection string says otherwise.
const POOL: u32 = 64;

/// A database on a server, for one service. Clones share the connections.
#[derive(Clone, Debug)]
pub struct MongoStore {
    database: Database,
    /// Known once the server has answered.
    pub(super) is_replica_set: Arc<OnceCell<bool>>,
    failures: Failures,
}

impl MongoStore {
    /// Sets the connection up without waiting for the server. Must be called within a tokio runtime.
    ///
    /// What the connection string says of pools and time limits is kept. What it says of read and write concern is not:
    /// writes are acknowledged by a majority that has them in its journal, reads see only such writes, on the primary.
    ///
    /// # Errors
    /// When the connection string does not fit, or names a `mongodb+srv` host that cannot be looked up now.
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

    /// The database, for adapters that a service adds. Reads and writes made through it keep the promises of
    /// [`Self::connect`]; commands run by hand must state their own.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    /// Asks the primary for a sign of life, for 1.5 s at most.
    ///
    /// # Errors
    /// When there is none.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let asked = limited(async { self.database.run_command(doc! { "ping": 1 }).await });
        match tokio::time::timeout(PING_LIMIT, asked).await {
            Ok(answer) => answer.map(drop),
            // The driver would go on looking for a server. What it has seen so far says why.
            Err(_) => Err(StoreError::Away(self.failures.sentence().unwrap_or_else(
                || {
                    format!(
                        "MongoDB did not answer within {} ms",
                        PING_LIMIT.as_millis()
                    )
                },
            ))),
        }
    }
}

/// The write concern of commands run by hand: a majority that has the write in its journal, within [`SERVER_LIMIT`].
#[must_use]
pub fn write_concern() -> Document {
    doc! { "w": "majority", "j": true, "wtimeout": milliseconds(SERVER_LIMIT) }
}

pub(super) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// An operation within the time limit of calls, 8 s. Every call to the server is made through it.
///
/// # Errors
/// The operation's, or [`StoreError::Away`] when the time is up.
pub async fn limited<T>(
    operation: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(CALL_LIMIT, operation)
        .await
        .map_err(|_| {
            StoreError::Away(format!(
                "MongoDB did not answer within {} s",
                CALL_LIMIT.as_secs()
            ))
        })?
        .map_err(away)
}

/// The first `limit` documents of a cursor, each read where it lies in the server's answer, and whether there may be more: it ends
/// early when they have more than [`PAGE_BYTES`] together.
///
/// # Errors
/// The driver's; what `read` fails with is the inner result.
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

/// Documents inserted with one command.
const INSERTED_AT_ONCE: usize = 500;

/// `DuplicateKey`.
const DUPLICATE_KEY: i32 = 11000;

/// Inserts those documents whose `_id` is not there yet.
///
/// # Errors
/// When the server does not answer; some documents may then be there.
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

/// Whether a single write met a document with the same unique value.
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
