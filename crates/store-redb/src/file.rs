//! The database file, which can be opened again after an error of the file system.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redb::Database;

use super::OpenError;
use tandem_event_path::store::StoreError;

/// Memory for pages that were read and pages that will be written, in bytes.
const CACHE: usize = 64 * 1024 * 1024;

/// How long opening waits for another process to release the file. It is longer than that process may take to end
/// ([`HARD_EXIT_AFTER`](tandem_runtime::shutdown::HARD_EXIT_AFTER), 4 s).
const HANDOVER: Duration = Duration::from_secs(6);

/// The file of a store. After an error of the file system, redb refuses all access until it is opened again.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// `None` while the file is being opened again.
    database: RwLock<Option<Arc<Database>>>,
    openings: AtomicU64,
}

impl File {
    /// Opens the file, or creates it. Blocks for at most [`HANDOVER`] while another process has it open.
    ///
    /// # Errors
    /// If another process keeps it open, or it is not a store.
    pub(super) fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self {
            path: path.to_owned(),
            database: RwLock::new(Some(Arc::new(open_database(path, HANDOVER)?))),
            openings: AtomicU64::new(1),
        })
    }

    /// The open database.
    pub(super) fn database(&self) -> Result<Arc<Database>, StoreError> {
        let database = self.database.read();
        let database = database.unwrap_or_else(PoisonError::into_inner);
        database.clone().ok_or_else(|| {
            StoreError::Unavailable("the file is being opened again after an error".to_owned())
        })
    }

    /// Closes the file, opens it again and writes to it. Data that was not flushed is lost.
    ///
    /// # Errors
    /// If that fails. The file is closed then, and this may be called again.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let closed = {
            let database = self.database.write();
            database.unwrap_or_else(PoisonError::into_inner).take()
        };
        // Readers may hold the database a moment longer. Then the file is still in use.
        drop(closed);
        let database = open_database(&self.path, Duration::ZERO)?;
        let written = database
            .begin_write()
            .map_err(redb::Error::from)
            .and_then(|empty| empty.commit().map_err(redb::Error::from));
        written.map_err(|error| OpenError::Unusable {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        self.openings.fetch_add(1, Ordering::SeqCst);
        let current = self.database.write();
        *current.unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(database));
        Ok(())
    }

    /// How often the file was opened.
    pub(super) fn openings(&self) -> u64 {
        self.openings.load(Ordering::SeqCst)
    }
}

#[expect(clippy::disallowed_methods, reason = "another process holds the file")]
fn open_database(path: &Path, patience: Duration) -> Result<Database, OpenError> {
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
            Err(OpenError::InUse { .. }) if started.elapsed() < patience => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}
