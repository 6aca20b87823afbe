//! The changes of customers that passed last, by customer and revision: what passed in the log a moment ago the replica may not show yet,
//! and who subscribes between the two must not miss it.

use std::{
    collections::{VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, PoisonError},
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
    passed: Arc<Mutex<VecDeque<Passed>>>,
}

#[derive(Deserialize)]
struct Revision {
    revision: i64,
}

impl Recent {
    /// Notes a message before it is passed on. One that cannot be read is nobody's change.
    pub(super) fn note(&self, message: &Message) {
        let Some((key, body)) = message.key.as_ref().zip(message.payload.as_ref()) else {
            return;
        };
        let Ok(Revision { revision }) = serde_json::from_slice(body) else {
            return;
        };
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.len() >= REMEMBERED {
            passed.pop_front();
        }
        passed.push_back(Passed {
            digest: self.digests.hash_one(key),
            revision,
            position: message.position,
        });
    }

    /// Where the remembered changes of a customer begin that are newer than a revision; nowhere if there are none.
    pub(super) fn newer(&self, id: &str, revision: i64) -> Offsets {
        let digest = self.digests.hash_one(id);
        let mut from = Offsets::new();
        let passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        for one in passed.iter() {
            if one.digest == digest && one.revision > revision {
                let first = from.entry(one.position.partition).or_insert(i64::MAX);
                *first = (*first).min(one.position.offset);
            }
        }
        from
    }
}
