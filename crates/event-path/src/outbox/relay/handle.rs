//! The handle of a running relay: it takes offered events and returns the relay's status.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::outbox::{Backlog, PendingEvent};
use tandem_model::values::elapsed;
use tandem_runtime::clock::Clock;

/// What the relay knows about itself.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus {
    /// What was pending in the store at the last sweep. `None` if the store did not answer.
    pub backlog: Option<Backlog>,
    /// Kafka's last failure. Reset by the next success.
    pub failure: Option<String>,
    /// How many keys have an event that Kafka refuses in every retry.
    pub refused: usize,
    /// The key and the reason of the last such refusal. Reset when no key is refused any more.
    pub refusal: Option<String>,
}

impl RelayStatus {
    /// Age of the oldest pending event at this time.
    #[must_use]
    pub fn oldest_age(&self, now: SystemTime) -> Duration {
        self.backlog
            .and_then(|backlog| backlog.oldest)
            .map(|oldest| elapsed(oldest, now))
            .unwrap_or_default()
    }
}

/// Whether the oldest pending event exceeds the configured bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// The event is within the bounds, or there is none.
    None,
    /// Readers learn of changes late.
    Late,
    /// So late that, by the settings, this instance must get no requests.
    Unready,
}

/// A running relay. Clones share it.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    pub(super) hints: mpsc::Sender<Vec<PendingEvent>>,
    pub(super) status: watch::Receiver<RelayStatus>,
    pub(super) late_after: Duration,
    pub(super) unready_after: Option<Duration>,
    pub(super) largest_event: usize,
    pub(super) clock: Clock,
}

impl RelayHandle {
    /// Offers all pending events of one key to the relay, in order of revision. Never waits.
    pub fn offer(&self, pending: Vec<PendingEvent>) {
        if self.hints.try_send(pending).is_err() {
            metrics::counter!("outbox_hints_dropped_total").increment(1);
        }
    }

    /// Most bytes of an event's body. The publisher takes none that is larger.
    #[must_use]
    pub fn largest_event(&self) -> usize {
        self.largest_event
    }

    /// The present status of the relay.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    /// Age of the oldest pending event now.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        self.status.borrow().oldest_age(self.clock.now())
    }

    /// Whether the oldest pending event is older than the configured bounds for being late and for being unready.
    #[must_use]
    pub fn lateness(&self) -> Lateness {
        let age = self.oldest_age();
        if self.unready_after.is_some_and(|bound| age >= bound) {
            Lateness::Unready
        } else if age >= self.late_after {
            Lateness::Late
        } else {
            Lateness::None
        }
    }
}
