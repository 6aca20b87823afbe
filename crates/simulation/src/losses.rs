//! The losses of a log in a run, and which services must report them.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tandem_model::message::Message;

/// A partition whose loss a service must report, because its store remembers records of it.
pub type Told = (&'static str, String);

/// The records that were lost, and their partition.
#[derive(Clone, Debug)]
pub struct Lost {
    /// The topic.
    pub topic: &'static str,
    /// The partition.
    pub partition: usize,
    /// The records, in order.
    pub records: Vec<Message>,
}

/// The losses of a run.
#[derive(Debug, Default)]
pub struct Losses {
    is_any: AtomicBool,
    told: Mutex<BTreeMap<Told, Lost>>,
}

impl Losses {
    /// Whether a log has lost anything.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.is_any.load(Ordering::Relaxed)
    }

    /// The losses that must be reported, each with the first loss of its partition.
    pub fn told(&self) -> MutexGuard<'_, BTreeMap<Told, Lost>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds partitions that stores remember. For each partition, the first loss counts.
    pub fn add(&self, told: Vec<Told>, lost: &Lost) {
        self.is_any.store(true, Ordering::Relaxed);
        for told in told {
            self.told().entry(told).or_insert_with(|| lost.clone());
        }
    }
}
