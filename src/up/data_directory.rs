//! The directory that holds all data of one system, its lock, and the sealing key.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Error, ErrorKind, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rand::{TryRngCore, rngs::OsRng};

use crate::disk::advice;

const LOCK: &str = "lock";
const SEALING_KEY: &str = "sealing.key";
const SEALING_KEY_BYTES: usize = 32;
/// The embedded stores. Their contents are sealed with the sealing key.
const STORES: [&str; 2] = ["accounts.redb", "orders.redb"];

/// Why the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DataDirectoryError {
    /// It cannot be made or written.
    #[error("--data-dir: {} cannot be written ({source}); {}", path.display(), advice(source))]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        source: Error,
    },
    /// Another `up` runs on it.
    #[error("--data-dir: another `tandem up`{} uses {}; stop it, or choose another directory", process(holder), path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its process id, if known.
        holder: String,
    },
    /// The key exists but cannot be read.
    #[error("the sealing key {} cannot be read: {source}", path.display())]
    KeyUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: Error,
    },
    /// The key is gone, but a store that was sealed with it exists.
    #[error("the sealing key {} is gone, and {} is sealed with it: put it back from a backup, name it with --sealing-key-file, or choose another --data-dir to begin anew", path.display(), store.display())]
    KeyGone {
        /// The file of the key.
        path: PathBuf,
        /// A store that was sealed with the key.
        store: PathBuf,
    },
    /// There is no key, and none can be made.
    #[error("no sealing key can be made in {}: {reason}", path.display())]
    KeyNotMade {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn process(holder: &str) -> String {
    if holder.is_empty() {
        String::new()
    } else {
        format!(" (pid {holder})")
    }
}

/// A data directory that only this process uses, as long as this value lives.
#[derive(Debug)]
pub(super) struct DataDirectory {
    path: PathBuf,
    /// Holds the lock. Its content is the process id while `up` runs. The system releases the lock however the process
    /// ends.
    lock: File,
    left_in_a_hurry: bool,
}

impl DataDirectory {
    /// Makes the directory if needed and locks it.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or another `up` has the lock.
    pub(super) fn open(path: &Path) -> Result<Self, DataDirectoryError> {
        let not_writable = |source| DataDirectoryError::NotWritable {
            path: path.to_owned(),
            source,
        };
        // No other user of this machine may read its contents.
        let mut builder = std::fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(not_writable)?;
        // The children have different working directories.
        let path = std::path::absolute(path).map_err(not_writable)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK))
            .map_err(not_writable)?;
        let mut holder = String::new();
        let locked = lock.try_lock();
        // The content only adds the process id to the error message, so a failure to read it does not matter.
        let _ = lock.read_to_string(&mut holder);
        let holder = holder.trim().to_owned();
        match locked {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirectoryError::InUse { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(not_writable(source)),
        }
        let mut directory = Self {
            path: path.clone(),
            lock,
            left_in_a_hurry: !holder.is_empty(),
        };
        directory
            .note_holder(&std::process::id().to_string())
            .map_err(not_writable)?;
        Ok(directory)
    }

    fn note_holder(&mut self, holder: &str) -> Result<(), Error> {
        self.lock.set_len(0)?;
        self.lock.seek(SeekFrom::Start(0))?;
        self.lock.write_all(holder.as_bytes())
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the previous `up` was killed. Its children may then still be ending.
    pub(super) fn was_left_in_a_hurry(&self) -> bool {
        self.left_in_a_hurry
    }

    /// Records that every child has ended.
    pub(super) fn left_in_order(mut self) {
        // A failure only makes the next start wait longer for the ports.
        let _ = self.note_holder("");
    }

    /// Records that no child was started. What a killed `up` left behind stays recorded.
    pub(super) fn nothing_was_started(self) {
        if !self.left_in_a_hurry {
            self.left_in_order();
        }
    }

    /// The file with the key that seals card numbers at rest. The first call makes it.
    ///
    /// # Errors
    ///
    /// When the file cannot be read or made. Also when it is gone although embedded stores that were sealed with it
    /// exist here and are used.
    pub(super) fn sealing_key_file(
        &self,
        has_embedded_stores: bool,
    ) -> Result<PathBuf, DataDirectoryError> {
        let path = self.path.join(SEALING_KEY);
        match File::open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(DataDirectoryError::KeyUnreadable { path, source }),
        }
        // A new key would open nothing that is stored, and would take the place of the right one.
        let mut stores = STORES.iter().map(|store| self.path.join(store));
        if has_embedded_stores && let Some(store) = stores.find(|store| store.exists()) {
            return Err(DataDirectoryError::KeyGone { path, store });
        }
        match make_key(&path) {
            Ok(()) => Ok(path),
            Err(reason) => Err(DataDirectoryError::KeyNotMade { path, reason }),
        }
    }
}

fn make_key(path: &Path) -> Result<(), String> {
    let mut key = [0_u8; SEALING_KEY_BYTES];
    OsRng
        .try_fill_bytes(&mut key)
        .map_err(|error| error.to_string())?;
    // Written under another name first, so that a crash cannot leave half a key.
    let unfinished = path.with_extension("new");
    write_private(&unfinished, &STANDARD.encode(key))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|error| error.to_string())
}

fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_start_that_was_refused_is_not_taken_for_one_that_was_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        DataDirectory::open(path).unwrap().nothing_was_started();
        let killed = DataDirectory::open(path).unwrap();
        assert!(!killed.was_left_in_a_hurry());
        drop(killed);
        let refused = DataDirectory::open(path).unwrap();
        assert!(refused.was_left_in_a_hurry());
        refused.nothing_was_started();
        assert!(DataDirectory::open(path).unwrap().was_left_in_a_hurry());
    }

    #[test]
    fn no_other_key_is_made_beside_stores_that_are_sealed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let file = DataDirectory::open(path)
            .unwrap()
            .sealing_key_file(true)
            .unwrap();
        std::fs::write(path.join("orders.redb"), "").unwrap();
        std::fs::remove_file(&file).unwrap();

        let directory = DataDirectory::open(path).unwrap();
        let told = directory.sealing_key_file(true).unwrap_err().to_string();
        assert!(
            told.contains("sealing.key is gone") && told.contains("orders.redb"),
            "{told}"
        );
        assert!(!file.exists());
        // With MongoDB the embedded stores do not matter: the data is in MongoDB, and a new key may be made here.
        assert_eq!(directory.sealing_key_file(false).unwrap(), file);
    }
}
