//! The handle of a running relay: events are offered through it, and it gives the relay's status.

use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use crate::outbox::{Backlog, PendingEvent};
use tandem_model::values::elapsed;
use tandem_runtime::clock::Clock;

/// What the relay knows of itself.
#[derive(Clone, Debug, Default)]
pub struct RelayStatus {
    /// What was pending in the store at the last look; `None` when the store did not answer.
    pub backlog: Option<Backlog>,
    /// The last refusal of Kafka, gone with the next success.
    pub trouble: Option<String>,
    /// How many keys have an event that Kafka does not take, whatever is tried.
    pub refused: usize,
    /// What Kafka said of the last of them, and of which key; gone with the last of them.
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

/// How long the oldest pending event has waited, by the bounds that are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// It is young, or there is none.
    None,
    /// Readers get to know of changes late.
    Late,
    /// So late that the settings want no requests sent here.
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
    /// Tells the relay what is pending of one key, all of it, in order of revision. Never waits.
    pub fn offer(&self, pending: Vec<PendingEvent>) {
        if self.hints.try_send(pending).is_err() {
            metrics::counter!("outbox_hints_dropped_total").increment(1);
        }
    }

    /// Most bytes that the body of an event may have: the producer takes none that is larger.
    #[must_use]
    pub fn largest_event(&self) -> usize {
        self.largest_event
    }

    /// What the relay knows of itself now.
    #[must_use]
    pub fn status(&self) -> RelayStatus {
        self.status.borrow().clone()
    }

    /// Age of the oldest pending event now.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        self.status.borrow().oldest_age(self.clock.now())
    }

    /// Whether the oldest pending event is older than the bounds that were set: of being late, and of being ready.
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
