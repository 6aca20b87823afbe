//! An open store. Writes go through the group committer; reads do not.

use std::{path::Path, sync::Arc};

use redb::{Database, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};

use super::{
    codec::Codec,
    committer::{Committer, Durable},
    error::{OpenError, WorkError},
    file::File,
};
use tandem_event_path::store::{StoreError, WriteEpoch};

/// The store's registry, which also says how the records are sealed: name → value.
pub(super) const REGISTRY: TableDefinition<'static, &'static str, &'static str> =
    TableDefinition::new("registry");

/// An open store file. When the last adapter on it is dropped, it closes with all commits on disk.
///
/// redb's quick repair stays off. It adds a flush and a copy of the allocator's state to every commit, at up to a
/// thousand commits per second. It would only save a walk through the file after a crash. For the file sizes that the
/// embedded store is meant for (up to a few GB), that walk takes about as long as reading the file. Committed data is
/// safe either way.
#[derive(Debug)]
pub struct EmbeddedStore {
    // Declared before the database, so that the writer ends first and then the file closes.
    committer: Committer,
    file: Arc<File>,
    codec: Codec,
}

impl EmbeddedStore {
    /// Opens the file, or creates it and its directory. Call it once for a file and share the result. `codec` encodes
    /// the records.
    ///
    /// After a crash the file is checked first, which is logged. If another process has the file open, it is retried
    /// for 6 s, so that a service can restart before its predecessor has ended. This blocks the thread.
    ///
    /// # Errors
    /// If the directory cannot be created, another process keeps the file open, or the file is not a store.
    pub fn open(path: impl AsRef<Path>, codec: Codec) -> Result<Arc<Self>, OpenError> {
        Self::open_with(path, |_| codec)
    }

    /// Like [`Self::open`], with a codec that depends on the store's registry. It gets a function that reads a name
    /// from it.
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
        // If the file cannot be read, the next read reports it.
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

    /// Runs `work` in a write transaction that is shared with other waiting jobs, and returns after the commit.
    ///
    /// `work` runs on the writer thread, so compute everything possible before, such as encoding. It may run more than
    /// once, always in a fresh transaction, and must change nothing else. If it fails, nothing that it wrote is kept.
    ///
    /// # Errors
    /// The error of `work`. Also if the file cannot be written; it is unknown then whether the change was kept.
    pub async fn write<T, F>(&self, durable: Durable, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&WriteTransaction) -> Result<T, WorkError> + Send + 'static,
    {
        self.committer.commit(durable, work).await
    }

    /// Runs `work` on the committed data, on a thread that may block.
    ///
    /// # Errors
    /// The error of `work`. Also if the file cannot be read.
    pub async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&ReadTransaction) -> Result<T, WorkError> + Send + 'static,
    {
        let database = self.file.database()?;
        tokio::task::spawn_blocking(move || Ok(work(&begin(&database)?)?))
            .await
            .map_err(|error| {
                StoreError::Unavailable(format!(
                    "a read of the embedded store ended early: {error}"
                ))
            })?
    }

    /// Runs `work` on the committed data, on the current thread. For a few records by key, whose reading takes less
    /// time than the handover to another thread.
    ///
    /// # Errors
    /// The error of `work`. Also if the file cannot be read.
    pub fn read_here<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, WorkError>,
    ) -> Result<T, StoreError> {
        Ok(work(&begin(self.file.database()?.as_ref())?)?)
    }

    /// The current write epoch. A new one begins when the file had to be opened again. Commits without [`Durable::Yes`]
    /// may be lost then.
    #[must_use]
    pub fn write_epoch(&self) -> WriteEpoch {
        WriteEpoch(self.file.openings().to_string())
    }

    /// Why the file failed the newest durable write, for example because the disk is full; `None` once a write
    /// succeeded again.
    #[must_use]
    pub fn last_failure(&self) -> Option<StoreError> {
        self.committer.last_failure()
    }

    /// The codec of the records.
    #[must_use]
    pub fn codec(&self) -> &Codec {
        &self.codec
    }
}

fn begin(database: &Database) -> Result<ReadTransaction, WorkError> {
    Ok(database.begin_read()?)
}
