//! What one subscription holds of the events that wait for clients, within a bound of its own and one for all; given back when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Held;

/// The most that is held for one subscription.
pub(super) const MOST_BYTES: usize = 2 * 1024 * 1024;
/// The most that is held for all subscriptions of the process, in bytes.
pub(super) const MOST_OF_ALL: usize = 256 * 1024 * 1024;

/// What one subscription holds; given back when it ends.
#[derive(Clone)]
pub(super) struct Share(Arc<Of>);

struct Of {
    own: AtomicUsize,
    all: Held,
}

impl Share {
    pub(super) fn of(all: &Held) -> Self {
        Self(Arc::new(Of {
            own: AtomicUsize::new(0),
            all: all.clone(),
        }))
    }

    pub(super) fn take(&self, bytes: usize) -> bool {
        let own = self.0.own.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let all = self.0.all.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        // One event is always taken: it is larger than the bound, or the others hold all.
        own <= MOST_BYTES.max(bytes) && (all <= MOST_OF_ALL || own == bytes)
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.0.own.fetch_sub(bytes, Ordering::Relaxed);
        self.0.all.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Of {
    fn drop(&mut self) {
        self.all
            .0
            .fetch_sub(self.own.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
