//! The log: topics, record batches, the state of producers and the committed offsets of groups, in one redb file.
//!
//! Batches are stored as the bytes that the producer sent, as in Kafka. All changes go through one writer
//! ([`committer`]), which makes those in flight durable together. Reads run concurrently and see only durable data.

mod changes;
mod cleaning;
mod committer;
mod compaction;
mod failure;
mod producers;
mod reads;
mod settings;
mod state;
mod tables;
mod topics;

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redb::{Database, DatabaseError};
use tokio::sync::{Mutex, oneshot};

pub(crate) use changes::{Appended, Changes, CommittedOffset, Refused};
pub(crate) use committer::{Opener, Pending, Unavailable};
pub(crate) use failure::Failure;
pub(crate) use reads::{Found, When};
pub(crate) use settings::{KNOWN, TopicSettings};
pub(crate) use state::{Unusable, open_file};
pub(crate) use topics::{Partition, Topic, Topics};

use committer::{Committer, Shared};

/// How many producer ids one change reserves.
const PRODUCER_IDS: i64 = 1_000;

/// How long the first opening waits for another process, which is ending, to release the file.
const HANDOVER: Duration = Duration::from_secs(6);

/// An open log. When it is dropped, it closes with everything acknowledged on disk.
#[derive(Debug)]
pub(crate) struct Log {
    // Declared before the file, so that the writer ends first and then the file closes.
    committer: Committer,
    shared: Arc<Shared>,
    cluster: Arc<str>,
    producer_ids: Mutex<Range<i64>>,
}

impl Log {
    /// Opens the log with `open`, which is called again after a failure. The returned receiver gets an error when the
    /// writer has ended. Nothing can be written then.
    ///
    /// # Errors
    /// If the file cannot be opened, or is not a log.
    pub(crate) fn open(open: Opener) -> Result<(Self, oneshot::Receiver<()>), Unusable> {
        let database = Arc::new(open().map_err(|error| Unusable::Failure(error.into()))?);
        let state = state::load(&database)?;
        let cluster = Arc::clone(&state.cluster);
        let (ended, when_ended) = oneshot::channel();
        let (committer, shared) = Committer::start(open, database, state, ended)
            .map_err(|error| Unusable::Failure(error.into()))?;
        let log = Self {
            committer,
            shared,
            cluster,
            producer_ids: Mutex::new(0..0),
        };
        Ok((log, when_ended))
    }

    /// Opens the log in a file, or creates the file. If another process has the file open, it is retried for
    /// [`HANDOVER`]. This blocks the thread.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[expect(clippy::disallowed_methods, reason = "the broker runs on real time")]
    pub(crate) fn open_at(path: &Path) -> Result<(Self, oneshot::Receiver<()>), Unusable> {
        let path = path.to_owned();
        let begin = Instant::now();
        Self::open(Arc::new(move || {
            loop {
                match open_file(&path) {
                    Err(DatabaseError::DatabaseAlreadyOpen) if begin.elapsed() < HANDOVER => {
                        std::thread::sleep(Duration::from_millis(50));
                    }
                    outcome => return outcome,
                }
            }
        }))
    }

    /// The id of the cluster, which is stored in the file.
    pub(crate) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The current topics.
    pub(crate) fn topics(&self) -> Arc<Topics> {
        let topics = self.shared.topics.read();
        Arc::clone(&topics.unwrap_or_else(PoisonError::into_inner))
    }

    /// Submits a change to the writer, in the order of the calls; see [`Changes`] for the possible changes. `bytes` is
    /// about how much it writes.
    pub(crate) async fn submit<T, F>(&self, bytes: usize, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Changes<'_>) -> Result<T, Failure> + Send + 'static,
    {
        self.committer.submit(bytes, work).await
    }

    /// Submits a change, and waits until it is durable.
    pub(crate) async fn change<T, F>(&self, work: F) -> Result<T, Unavailable>
    where
        T: Send + 'static,
        F: FnOnce(&mut Changes<'_>) -> Result<T, Failure> + Send + 'static,
    {
        answer(self.submit(0, work).await).await
    }

    /// A producer id that was never used before.
    pub(crate) async fn producer_id(&self) -> Result<i64, Unavailable> {
        let mut ids = self.producer_ids.lock().await;
        if ids.is_empty() {
            let first = self
                .change(|changes| changes.reserve_producers(PRODUCER_IDS))
                .await?;
            *ids = first..first + PRODUCER_IDS;
        }
        ids.next().ok_or(Unavailable)
    }

    fn database(&self) -> Result<Arc<Database>, Unavailable> {
        let database = self.shared.database.read();
        let database = database.unwrap_or_else(PoisonError::into_inner);
        database.as_ref().map(Arc::clone).ok_or(Unavailable)
    }
}

/// Waits for the answer to a change.
pub(crate) async fn answer<T>(pending: Pending<T>) -> Result<T, Unavailable> {
    pending.await.unwrap_or(Err(Unavailable))
}

/// The current time, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the broker runs on real time")]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests;
