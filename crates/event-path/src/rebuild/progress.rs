//! The progress of a rebuild, reported to its caller at every step.

use serde::{Deserialize, Serialize};
use tandem_runtime::clock::{Clock, Instant};

/// What a rebuild has done so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The name of the target.
    pub target: String,
    /// Messages read.
    pub read: u64,
    /// Messages to read. Grows while the log grows.
    pub total: u64,
    /// Aggregates or entries that were written or found correct. Fewer than `read` if several revisions went into one
    /// write.
    pub written: u64,
    /// Messages that cannot be processed. They are dead letters of the consumer of this topic.
    pub refused: u64,
    /// Aggregates whose newest event in the log cannot be opened and is not stored. It waits for its data key.
    #[serde(default)]
    pub waiting: u64,
    /// Rows under ids that the log does not know. They are left alone.
    #[serde(default)]
    pub unknown: u64,
    /// The part of `unknown` that are entries of aggregates which the log knows. Restoring the log does not bring them
    /// back.
    #[serde(default)]
    pub gaps: u64,
    /// Rows whose revision is ahead of the log. They are left alone.
    #[serde(default)]
    pub ahead: u64,
    /// Entries whose content differs from the log's. They are left alone, unless the order was to replace them.
    #[serde(default)]
    pub differing: u64,
    /// Entries whose original form only the store has, because the log was restored from newer states. They are kept.
    #[serde(default)]
    pub only_stored: u64,
    /// Entries that were replaced with the log's content.
    #[serde(default)]
    pub revert: u64,
    /// A warning about the log, if it is incomplete or not the one that the store was made from.
    #[serde(default)]
    pub of_the_log: Option<String>,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether everything has been read and written.
    pub done: bool,
}

/// The progress of a rebuild, and the callback that reports it.
pub(super) struct Reporter<'a> {
    pub(super) begun: Instant,
    pub(super) clock: Clock,
    pub(super) progress: Progress,
    pub(super) tell: &'a mut (dyn FnMut(Progress) + Send + Sync),
}

impl Reporter<'_> {
    pub(super) fn step(&mut self) {
        self.progress.seconds = self.clock.since(self.begun).as_secs_f64();
        (self.tell)(self.progress.clone());
    }
}
