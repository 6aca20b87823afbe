//! The newest published revision of each recent key. With it the relay does not publish a late hint again, and clears
//! an event that is still pending although it was published.

use std::collections::HashMap;

use uuid::Uuid;

use crate::outbox::PendingEvent;

/// Keys in one generation of [`Remembered`].
const REMEMBERED: usize = 50_000;

/// An event that was published.
#[derive(Clone, Copy)]
pub(super) struct Published {
    pub(super) revision: i64,
    /// The event's id.
    id: Uuid,
}

impl Published {
    pub(super) fn is(self, event: &PendingEvent) -> bool {
        self.revision == event.revision && self.id == event.event.id
    }
}

/// The newest published event of recent keys. Two generations keep the memory bounded.
#[derive(Default)]
pub(super) struct Remembered {
    young: HashMap<String, Published>,
    old: HashMap<String, Published>,
}

impl Remembered {
    pub(super) fn get(&self, key: &str) -> Option<Published> {
        let young = self.young.get(key);
        young.or_else(|| self.old.get(key)).copied()
    }

    pub(super) fn set(&mut self, key: &str, event: &PendingEvent) {
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        let published = Published {
            revision: event.revision,
            id: event.event.id,
        };
        self.young.insert(key.to_owned(), published);
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.young.remove(key);
        self.old.remove(key);
    }
}
