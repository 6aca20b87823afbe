//! The progress of a rebuild, reported to its caller at every step.

use serde::{Deserialize, Serialize};
use tandem_runtime::clock::{Clock, Instant};

/// What a rebuild has done so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being rebuilt.
    pub target: String,
    /// Messages read.
    pub read: u64,
    /// Messages to read; grows while the log does.
    pub total: u64,
    /// Aggregates or entries written, or found to be right: less than read where several revisions collapsed into one write.
    pub written: u64,
    /// Messages that cannot be taken; they are dead letters of the consumer of this topic.
    pub refused: u64,
    /// Aggregates whose newest event in the log does not open and is not stored: it waits for its data key.
    #[serde(default)]
    pub waiting: u64,
    /// What is stored under ids that the log does not know. It is left as it is.
    #[serde(default)]
    pub unknown: u64,
    /// Of these, entries of aggregates that the log knows: no restoring of the log brings them back to it.
    #[serde(default)]
    pub gaps: u64,
    /// What is stored at revisions ahead of the log. It is left as it is.
    #[serde(default)]
    pub ahead: u64,
    /// Entries whose content is not the log's. They are left as they are, unless they were ordered to be made as the log has them.
    #[serde(default)]
    pub differing: u64,
    /// Entries that only the store has as they were, because the log was restored from newer states. They stay.
    #[serde(default)]
    pub only_stored: u64,
    /// Entries that were made as the log has them.
    #[serde(default)]
    pub revert: u64,
    /// What is to be said of the log, if it is not whole or not the one that the store was made from.
    #[serde(default)]
    pub of_the_log: Option<String>,
    /// Seconds since the start.
    pub seconds: f64,
    /// Whether everything is read and written.
    pub done: bool,
}

/// The progress of a rebuild, and where it is reported.
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
