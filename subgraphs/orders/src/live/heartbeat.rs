//! When a subscriber that hears nothing is told that nothing happened.

use std::{pin::pin, time::Duration};

use tandem_runtime::clock::Clock;
use tokio::time::Instant;

/// The heartbeat of one subscription; none if it wants none.
#[derive(Debug)]
pub(super) struct Beat {
    every: Option<Duration>,
    last: Instant,
}

impl Beat {
    pub(super) fn new(every: Option<Duration>, clock: &Clock) -> Self {
        Self {
            every,
            last: clock.instant(),
        }
    }

    /// Something was sent: the next heartbeat comes a whole interval later.
    pub(super) fn sent(&mut self, clock: &Clock) {
        if self.every.is_some() {
            self.last = clock.instant();
        }
    }

    /// Does work until it is done, or a heartbeat is due: then `None`, and the work is dropped.
    pub(super) async fn before_due<T>(
        &self,
        clock: &Clock,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let Some(every) = self.every else {
            return Some(work.await);
        };
        let work = pin!(work);
        tokio::select! {
            biased;
            done = work => Some(done),
            () = clock.sleep_until(self.last + every) => None,
        }
    }
}
