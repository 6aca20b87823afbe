//! An open store: written through the group committer, read beside it.

use std::{path::Path, sync::Arc};

use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{
    codec::Codec,
    committer::{Committer, Durable},
    error::{OpenError, WorkError},
    file::File,
};
use tandem_event_path::store::{StoreError, WriteEpoch};

/// What the store remembers of itself, which says also how its records are written: name → value.
pub(super) const REGISTRY: TableDefinition<'static, &'static str, &'static str> =
    TableDefinition::new("registry");

/// An open store file. It closes, with everything committed on disk, when the last adapter on it is dropped.
///
/// redb's quick repair stays off: it adds a flush and a copy of the allocator's state to every commit, which is paid a
/// thousand times a second, to save a walk through the file after a crash, which at the size of file that the embedded store is
/// meant for (up to a few GB) takes about as long as reading it. Nothing committed is lost either way.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Before the database: the writer ends first, then the file closes.
    committer: Committer,
    file: Arc<File>,
    codec: Codec,
}

impl EmbeddedStore {
    /// Opens the file, or makes it and its directory. Call it once a file and share what it returns. Records are written
    /// as `codec` says.
    ///
    /// After a crash the file is checked first; that is logged. A file that another process holds is tried again for 6 s,
    /// so that a service can be restarted before its predecessor is quite gone. This blocks.
    ///
    /// # Errors
    /// When the directory cannot be made, another process keeps the file, or it is not a store.
    pub fn open(path: impl AsRef<Path>, codec: Codec) -> Result<Arc<Self>, OpenError> {
        Self::open_with(path, |_| codec)
    }

    /// As [`Self::open`], where the codec depends on what the store's registry remembers: a function that asks for a name.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        path: impl AsRef<Path>,
        codec: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> Codec,
    ) -> Result<Arc<Self>, OpenError> {
        let path = path.as_ref();
        let directory = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(directory).map_err(|source| OpenError::Directory {
            directory: directory.to_owned(),
            source,
        })?;
        let file = Arc::new(File::open(path)?);
        let committer =
            Committer::start(Arc::clone(&file)).map_err(|error| OpenError::Unusable {
                path: path.to_owned(),
                reason: format!("its writer thread does not start: {error}"),
            })?;
        let database = file.database().map_err(|error| OpenError::Unusable {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        // A file that cannot be read fails the next read of it.
        let recall = |name: &str| {
            let transaction = database.begin_read().ok()?;
            let table = transaction.open_table(REGISTRY).ok()?;
            Some(table.get(name).ok()??.value().to_owned())
        };
        let codec = codec(&recall);
        drop(database);
        Ok(Arc::new(Self {
            committer,
            file,
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
        F: FnMut(&WriteTransaction) -> Result<T, WorkError> + Send + 'static,
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
        F: FnOnce(&ReadTransaction) -> Result<T, WorkError> + Send + 'static,
    {
        let database = self.file.database()?;
        tokio::task::spawn_blocking(move || Ok(work(&begin(&database)?)?))
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
        work: impl FnOnce(&ReadTransaction) -> Result<T, WorkError>,
    ) -> Result<T, StoreError> {
        Ok(work(&begin(self.file.database()?.as_ref())?)?)
    }

    /// The epoch in which it is written now: another one begins when the file had to be opened again, and what was committed
    /// without [`Durable::Yes`] may then be lost.
    #[must_use]
    pub fn write_epoch(&self) -> WriteEpoch {
        WriteEpoch(self.file.openings().to_string())
    }

    /// Why the newest durable write failed of the file itself, as on a full disk; `None` once one has succeeded again.
    #[must_use]
    pub fn last_failure(&self) -> Option<StoreError> {
        self.committer.last_failure()
    }

    /// How records become bytes here.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }
}

fn begin(database: &Database) -> Result<ReadTransaction, WorkError> {
    Ok(database.begin_read()?)
}
