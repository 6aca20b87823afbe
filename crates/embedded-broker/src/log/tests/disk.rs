//! A simulated disk that can lose power or become full.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::log::Opener;

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => bytes[*at..at + data.len()].copy_from_slice(data),
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// The content that reads return.
    now: Vec<u8>,
    /// The content that survives a power loss in any case.
    flushed: Vec<u8>,
    /// The writes since the last flush.
    unflushed: Vec<Change>,
    is_full: bool,
    /// The number of writes until the disk is full.
    writes_left: Option<u32>,
}

/// A simulated disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    pub(super) fn opener(&self) -> Opener {
        let disk = self.clone();
        Arc::new(move || disk.open())
    }

    fn open(&self) -> Result<Database, DatabaseError> {
        Builder::new().create_with_backend(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub(super) fn fill(&self) {
        self.state().is_full = true;
    }

    /// Becomes full after this many more writes, in the middle of an operation.
    pub(super) fn fill_after(&self, writes: u32) {
        self.state().writes_left = Some(writes);
    }

    pub(super) fn make_room(&self) {
        let mut state = self.state();
        state.is_full = false;
        state.writes_left = None;
    }

    /// The disk as it may be after a power loss now: the flushed content, and any part of the writes since, also
    /// partial ones.
    pub(super) fn after_power_loss(&self, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let state = self.state();
        let mut bytes = state.flushed.clone();
        for change in &state.unflushed {
            match change {
                // A file system journals lengths. Data beyond the length could not be read.
                Change::Length(length) => bytes.resize((*length).max(bytes.len()), 0),
                Change::Write(..) if random.random_bool(0.4) => {}
                Change::Write(at, data) => {
                    let whole = random.random_bool(0.7);
                    let length = if whole {
                        data.len()
                    } else {
                        random.random_range(0..=data.len())
                    };
                    Change::Write(*at, data[..length].to_vec()).apply(&mut bytes);
                }
            }
        }
        Self(Arc::new(Mutex::new(State {
            now: bytes.clone(),
            flushed: bytes,
            ..State::default()
        })))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state();
        if let Some(left) = &mut state.writes_left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => state.is_full = true,
            }
        }
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        change.apply(&mut state.now);
        state.unflushed.push(change);
        Ok(())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let state = self.state();
        let found = state.now.get(at..at + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let unflushed = std::mem::take(&mut state.unflushed);
        for change in unflushed {
            change.apply(&mut state.flushed);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Write(
            usize::try_from(offset).unwrap(),
            data.to_vec(),
        ))
    }
}
