//! The changes of customers that passed last, by customer and revision: what passed in the log a moment ago the replica may not show yet,
//! and who subscribes between the two must not miss it. It knows from where on it remembers; what passed before that is in the log.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tandem_event_path::log::Offsets;
use tandem_model::message::{Message, Position};

/// Changes that are remembered: more than a replica that is in time is behind.
const REMEMBERED: usize = 10_000;

#[derive(Debug)]
struct Passed {
    /// Of the customer's id.
    digest: u64,
    revision: i64,
    position: Position,
}

/// What passed last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    digests: RandomState,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    passed: VecDeque<Passed>,
    /// Of each partition from where on everything that passed is remembered.
    since: Offsets,
}

#[derive(Deserialize)]
struct Revision {
    revision: i64,
}

impl Recent {
    /// Notes a message before it is passed on. One that cannot be read is nobody's change.
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

    /// Where the remembered changes of a customer begin that are newer than a revision; nowhere if there are none.
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

    /// What lies between what the replica has taken and where the feed has come, and is not remembered: from where on it is to be read,
    /// in each partition where there is any.
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
