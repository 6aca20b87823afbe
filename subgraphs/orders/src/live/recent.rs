//! The most recent changes of customers, by customer and revision. A change that passed in the log a moment ago may not
//! be in the replica yet, and a subscriber that joins in between must not miss it. The memory knows where it begins.
//! Earlier changes can be read from the log.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tandem_event_path::log::Offsets;
use tandem_model::message::{Message, Position};

/// The number of changes that are remembered. A healthy replica is not this far behind.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
struct Passed {
    /// A digest of the customer's id.
    digest: u64,
    revision: i64,
    position: Position,
}

/// The most recent changes. Clones share the memory.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    digests: RandomState,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    passed: VecDeque<Passed>,
    /// For each partition, the offset from which everything that passed is remembered.
    since: Offsets,
}

#[derive(Deserialize)]
struct Revision {
    revision: i64,
}

impl Recent {
    /// Records a message before it is passed on. A message that cannot be read is not a change of any customer.
    pub(super) fn note(&self, message: &Message) {
        let Position { partition, offset } = message.position;
        self.memory().since.entry(partition).or_insert(offset);
        let Some((key, body)) = message.key.as_ref().zip(message.payload.as_ref()) else {
            return;
        };
        let Ok(Revision { revision }) = serde_json::from_slice(body) else {
            return;
        };
        let mut memory = self.memory();
        if memory.passed.len() >= REMEMBERED
            && let Some(Passed { position, .. }) = memory.passed.pop_front()
        {
            let since = memory.since.entry(position.partition).or_default();
            *since = (*since).max(position.offset + 1);
        }
        memory.passed.push_back(Passed {
            digest: self.digests.hash_one(key),
            revision,
            position: message.position,
        });
    }

    /// Where the remembered changes of a customer begin that are newer than a revision. Empty if there are none.
    pub(super) fn newer(&self, id: &str, revision: i64) -> Offsets {
        let digest = self.digests.hash_one(id);
        let mut from = Offsets::new();
        for one in &self.memory().passed {
            if one.digest == digest && one.revision > revision {
                let first = from.entry(one.position.partition).or_insert(i64::MAX);
                *first = (*first).min(one.position.offset);
            }
        }
        from
    }

    /// The changes between the progress of the replica and the position of the feed that are not remembered. Returns
    /// the offset from which to read them, for each partition that has any.
    pub(super) fn forgotten(&self, taken: &Offsets, feed: &Offsets) -> Offsets {
        let memory = self.memory();
        let mut from = Offsets::new();
        for (partition, next) in feed {
            let taken = taken.get(partition).copied().unwrap_or(0);
            let since = memory.since.get(partition).copied().unwrap_or(*next);
            if taken < since.min(*next) {
                from.insert(*partition, taken);
            }
        }
        from
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
