//! The file itself: opened once, written through the group committer, read beside it.

use std::{path::Path, sync::Arc, time::Duration};

use redb::{Database, ReadTransaction, WriteTransaction};

use super::{Codec, Durable, OpenError, committer::Committer};
use crate::store::StoreError;

/// Memory for pages read and pages about to be written, in bytes.
const CACHE: usize = 64 * 1024 * 1024;

/// How long opening waits for a process that is about to end to let go of the file: longer than that may take
/// ([`HARD_EXIT_AFTER`](crate::shutdown::HARD_EXIT_AFTER), 4 s).
const HANDOVER: Duration = Duration::from_secs(6);

/// An open store file. It closes, with everything committed on disk, when the last adapter on it is dropped.
///
/// redb's quick repair stays off: it adds a flush and a copy of the allocator's state to every commit, which is paid a
/// thousand times a second, to save a walk through the file after a crash, which at the size of file that the embedded store is
/// meant for (up to a few GB) takes about as long as reading it. Nothing committed is lost either way.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Before the database: the writer ends first, then the file closes.
    committer: Committer,
    database: Arc<Database>,
    codec: Codec,
}

impl EmbeddedStore {
    /// Opens the file, or makes it and its directory. Call it once a file and share what it returns. Records are written
    /// as `codec` says.
    ///
    /// After a crash the file is checked first; that is logged. A file that another process holds is tried again for 2 s,
    /// so that a service can be restarted before its predecessor is quite gone. This blocks.
    ///
    /// # Errors
    /// When the directory cannot be made, another process keeps the file, or it is not a store.
    pub fn open(path: impl AsRef<Path>, codec: Codec) -> Result<Arc<Self>, OpenError> {
        let path = path.as_ref();
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            directory: directory.to_owned(),
            source,
        })?;
        let database = Arc::new(open_database(path)?);
        let committer =
            Committer::start(Arc::clone(&database)).map_err(|error| OpenError::Unusable {
                path: path.to_owned(),
                reason: format!("its writer thread does not start: {error}"),
            })?;
        Ok(Arc::new(Self {
            committer,
            database,
            codec,
        }))
    }

    /// Runs `work` in a write transaction, shared with what else waits, and answers when that is committed.
    ///
    /// `work` runs on the writer thread: whatever can be computed before (encoding) should be. It may run more than once,
    /// always in a fresh transaction, and must change nothing else. If it fails, nothing it wrote is kept.
    ///
    /// # Errors
    /// What `work` fails with, or that the file cannot be written; it is then unknown whether the change was kept.
    pub async fn write<T, F>(&self, durable: Durable, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        self.committer.commit(durable, work).await
    }

    /// Runs `work` on what is committed now, on a thread that may block.
    ///
    /// # Errors
    /// What `work` fails with, or that the file cannot be read.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || work(&begin(&database)?))
            .await
            .map_err(|error| {
                StoreError::Away(format!("a read of the embedded store ended early: {error}"))
            })?
    }

    /// Runs `work` on what is committed now, on this very thread: for a few records by key, which take less time than
    /// handing them to another thread.
    ///
    /// # Errors
    /// What `work` fails with, or that the file cannot be read.
    pub fn read_here<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&begin(&self.database)?)
    }

    /// How records become bytes here.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }
}

fn begin(database: &Database) -> Result<ReadTransaction, StoreError> {
    use redb::ReadableDatabase;
    Ok(database.begin_read()?)
}

fn open_database(path: &Path) -> Result<Database, OpenError> {
    let name = path.display().to_string();
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE);
    builder.set_repair_callback(move |repair| {
        let percent = (repair.progress() * 100.0).round();
        tracing::info!(store = %name, percent, "checking the store: it was not closed cleanly");
    });
    let started = std::time::Instant::now();
    loop {
        match builder
            .create(path)
            .map_err(|error| OpenError::from_database(path.to_owned(), error))
        {
            Err(OpenError::InUse { .. }) if started.elapsed() < HANDOVER => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}
