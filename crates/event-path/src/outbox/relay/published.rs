//! The newest published revision of each recent key. By it a late hint is not published a second time, and an event that is still pending though it
//! was published is cleared.

use std::collections::HashMap;

use uuid::Uuid;

use crate::outbox::PendingEvent;

/// Keys whose newest published revision is remembered, so that a late hint is not published again.
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

/// The newest published event of the keys seen lately, in two generations so that it stays bounded.
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
