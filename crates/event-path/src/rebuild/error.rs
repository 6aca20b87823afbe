//! The errors with which a rebuild ends early.

use std::time::Duration;

use crate::{held_back::HeldBackParts, log::LogError, store::StoreError};

/// How long no message may arrive before the end of the log is reached.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Why a rebuild ended early. It can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log delivered nothing for too long before its end.
    #[error("nothing came from {topic} for {} s, {read} of {total} messages read", SILENCE.as_secs())]
    Silent {
        /// The topic.
        topic: &'static str,
        /// Messages read.
        read: u64,
        /// Messages to read.
        total: u64,
    },
    /// Records behind an open transaction are in the log, but cannot be read yet.
    #[error(
        "{topic} is held back, {parts}: a transaction of another producer is open there, and what lies behind it cannot be read yet. Try again when it has ended; Kafka gives it up by itself after its producer's `transaction.timeout.ms`"
    )]
    HeldBack {
        /// The topic.
        topic: &'static str,
        /// The parts that cannot be read.
        parts: HeldBackParts,
    },
    /// A part of the work ended early.
    #[error(transparent)]
    BrokenOff(StoreError),
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}
