//! Why a rebuild ended early, as its caller is told.

use std::time::Duration;

use crate::{held_back::HeldBackParts, log::LogError, store::StoreError};

/// How long the log may be silent before its end.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// Why a rebuild ended early. It can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log went silent before its end.
    #[error("nothing came from {topic} for {} s, {read} of {total} messages read", SILENCE.as_secs())]
    Silent {
        /// Which topic.
        topic: &'static str,
        /// Messages read.
        read: u64,
        /// Messages to read.
        total: u64,
    },
    /// What lies behind a transaction that is open is in the log, and nobody can read it yet.
    #[error(
        "{topic} is held back, {parts}: a transaction of another producer is open there, and what lies behind it cannot be read yet. Try again when it has ended; Kafka gives it up by itself after its producer's `transaction.timeout.ms`"
    )]
    HeldBack {
        /// Which topic.
        topic: &'static str,
        /// What of it.
        parts: HeldBackParts,
    },
    /// A part of the work ended early.
    #[error(transparent)]
    BrokenOff(StoreError),
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}
