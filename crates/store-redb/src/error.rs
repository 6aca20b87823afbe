//! Errors of a store in a file, and which of them are transient.

use std::path::PathBuf;

use redb::{DatabaseError, StorageError};

use tandem_event_path::store::StoreError;

/// Why the embedded store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Its directory cannot be created or written.
    #[error("the directory {} of the embedded store cannot be used: {source}; choose another with --data-dir", directory.display())]
    Directory {
        /// The directory.
        directory: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Another process has the file open, or this one.
    #[error("the store {} is in use by another process; stop that one, or choose another directory with --data-dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The file is damaged, or is not a store.
    #[error("the store {} is damaged, or no store ({reason}); put back a copy of it, or move it away: an empty one is filled from the log at the next start", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
    /// The file exists, but cannot be read or written as a store.
    #[error("the store {} cannot be opened: {reason}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The database's reason.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn from_database(path: PathBuf, error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse { path },
            DatabaseError::Storage(error) if is_damage(&error) => Self::Damaged {
                path,
                reason: error.to_string(),
            },
            other => Self::Unusable {
                path,
                reason: other.to_string(),
            },
        }
    }
}

/// Whether the file is damaged, as opposed to a problem of the disk or the system.
fn is_damage(error: &StorageError) -> bool {
    use std::io::ErrorKind;
    match error {
        StorageError::Corrupted(_) => true,
        StorageError::Io(error) => {
            matches!(
                error.kind(),
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData
            )
        }
        _ => false,
    }
}

/// Separates damage from transient errors (a full disk, an unmounted file system). For `map_err` on calls of redb.
pub fn away(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        error @ (redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TableIsNotMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_)
        | redb::Error::ValueTooLarge(_)) => StoreError::Corrupt(error.to_string()),
        error => StoreError::Unavailable(error.to_string()),
    }
}

/// Why work in a transaction failed. Errors of redb convert to it with `?`, and it converts to a [`StoreError`].
#[derive(Debug)]
pub struct WorkError(StoreError);

impl From<StoreError> for WorkError {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

impl From<WorkError> for StoreError {
    fn from(error: WorkError) -> Self {
        error.0
    }
}

impl From<StorageError> for WorkError {
    fn from(error: StorageError) -> Self {
        Self(away(error))
    }
}

impl From<redb::TableError> for WorkError {
    fn from(error: redb::TableError) -> Self {
        Self(away(error))
    }
}

impl From<redb::TransactionError> for WorkError {
    fn from(error: redb::TransactionError) -> Self {
        Self(away(error))
    }
}

impl From<redb::CommitError> for WorkError {
    fn from(error: redb::CommitError) -> Self {
        Self(away(error))
    }
}
