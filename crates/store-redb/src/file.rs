//! The file itself: opened, and opened again after an error of the file system.

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

/// Memory for pages read and pages about to be written, in bytes.
const CACHE: usize = 64 * 1024 * 1024;

/// How long opening waits for a process that is about to end to let go of the file: longer than that may take
/// ([`HARD_EXIT_AFTER`](tandem_runtime::shutdown::HARD_EXIT_AFTER), 4 s).
const HANDOVER: Duration = Duration::from_secs(6);

/// The file behind a store. After an error of the file system redb takes it for lost until it is opened again.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    /// `None` while it is being opened again.
    database: RwLock<Option<Arc<Database>>>,
    openings: AtomicU64,
}

impl File {
    /// Opens the file, or makes it. Blocks, [`HANDOVER`] at most for a process that holds it.
    ///
    /// # Errors
    /// When another process keeps it, or it is not a store.
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
            StoreError::Away("the file is being opened again after an error".to_owned())
        })
    }

    /// Closes the file and opens it again, and writes to it. What was not flushed before is lost.
    ///
    /// # Errors
    /// When that fails: then it is closed, and this may be tried again.
    pub(super) fn reopen(&self) -> Result<(), OpenError> {
        let closed = {
            let database = self.database.write();
            database.unwrap_or_else(PoisonError::into_inner).take()
        };
        // Readers may hold it a moment longer: then it is in use still.
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

    /// How often it was opened.
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
