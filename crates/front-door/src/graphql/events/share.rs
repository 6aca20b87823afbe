//! The bytes that one subscription has buffered for its client, with a bound per subscription and one for all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Held;

/// The most bytes that are buffered for one subscription.
pub(super) const MOST_BYTES: usize = 2 * 1024 * 1024;
/// The most bytes that are buffered for all subscriptions of the process.
pub(super) const MOST_OF_ALL: usize = 256 * 1024 * 1024;

/// The buffered bytes of one subscription. They are released when it ends.
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
        // The only event of a subscription is always accepted, even if it exceeds the bound or the other subscriptions
        // have used up the common bound.
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
