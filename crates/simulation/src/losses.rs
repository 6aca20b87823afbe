//! What a log has lost in a run, and which services are to tell of it.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tandem_model::message::Message;

/// A partition whose loss a service is to tell of: its store remembers what was there.
pub type Told = (&'static str, String);

/// Where what was lost was, and its records.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Of which topic.
    pub topic: &'static str,
    /// Which partition.
    pub partition: usize,
    /// In order.
    pub records: Vec<Message>,
}

/// What was lost in a run.
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

    /// What is to be told, each with what was lost first of that partition.
    pub fn told(&self) -> MutexGuard<'_, BTreeMap<Told, Lost>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what stores remember. What was lost first of a partition counts.
    pub fn add(&self, told: Vec<Told>, lost: &Lost) {
        self.is_any.store(true, Ordering::Relaxed);
        for told in told {
            self.told().entry(told).or_insert_with(|| lost.clone());
        }
    }
}
