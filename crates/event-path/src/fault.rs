//! Deliberate faults for tests, which prove that the torture test would find them, and instants at which a process
//! aborts as if by `kill -9`. Compiled only with debug assertions: a release build contains none of it.
//!
//! * `TANDEM_FAULT` names lasting faults, separated by commas: `clear-before-publish` (the relay clears an event
//!   before it has published it), `commit-before-write` (a projection commits a position ahead of what it has
//!   written).
//! * [`plant`] enables lasting faults for everything that runs on one thread. With it, a simulation shows that it
//!   finds each of them.
//! * `TANDEM_FAULT_FILE` names a file. The file may contain the name of an `Instant` and of its place, as in
//!   `before-publish@accounts.customer.change`. The process that gets there first removes the file and aborts, so
//!   each file ends one process once.

/// A lasting fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The relay clears a pending event before it has published it.
    ClearBeforePublish,
    /// A projection commits offsets before it writes.
    CommitBeforeWrite,
    /// A writer offers only its own event to the relay, without the earlier pending events of the same key.
    HintTrusted,
    /// The relay sends the next event of a key before the previous one is acknowledged.
    KeyOrderOvertaken,
    /// The relay treats an event as acknowledged although publishing it failed.
    FailureTakenForSuccess,
    /// The relay looks for the pending events of other processes only when it starts.
    SweptOnce,
    /// A projection drops what it read during a slow write.
    ReadMeanwhileDropped,
    /// A subject whose data key is missing counts as erased.
    ErasedFromAbsence,
    /// An event that does not open is dropped.
    NotWaited,
    /// A rebuild waits for records at offsets that have none.
    HoleTakenForRecord,
    /// Unsigned records are accepted.
    SignatureNotChecked,
    /// A reader uses topics before anybody has claimed them.
    ClaimNotAwaited,
    /// A subscriber receives repeated events.
    RepeatsNotKnown,
    /// A subscriber that resumes receives only new events.
    NotCaughtUp,
    /// A read with a minimal revision returns the present state, however old it is.
    MinimalRevisionIgnored,
    /// Orders keep the personal data when their customer is erased.
    PersonNotForgotten,
    /// A read of own writes does not wait for the audit trail.
    AuditNotAwaited,
    /// A log that is not the one that the store was built from raises no alarm.
    OtherLogNotTold,
    /// Aggregates whose newest revisions the log has lost, but not the older ones, are not restored.
    RestoredByHalf,
    /// A record on the topic of keys still counts as present after a refused record was written behind it.
    OutlivedBelieved,
    /// When the older part of the topic of keys is read again, it overrides the newer part.
    OlderBelieved,
    /// A snapshot is read without a check whether its primary was deposed.
    BarrierNotPassed,
    /// Data that an older sealing key has sealed is written again as it was.
    SealedAsBefore,
    /// While the sealing key is replaced, no event is published for cards that are sealed again.
    ResealedCardsNotTold,
}

/// An instant at which a process can be ordered to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instant {
    /// A command was decided; nothing is written.
    BeforeWrite,
    /// State and event are stored; the event is not sent.
    BeforePublish,
    /// The event is published; it is still pending.
    BeforeClear,
    /// A projection has written; its offsets are not committed.
    BeforeCommit,
    /// Only with [`Fault::CommitBeforeWrite`]: the offsets are committed and nothing is written. The process does not
    /// abort: the next start would detect that the store does not remember having read the records.
    AfterEarlyCommit,
}

#[cfg(debug_assertions)]
mod switch {
    use std::{cell::RefCell, path::PathBuf, sync::OnceLock};

    use super::{Fault, Instant};

    impl Fault {
        /// The fault's name in the environment. Faults without a name can only be planted by a simulation.
        fn name(self) -> Option<&'static str> {
            match self {
                Self::ClearBeforePublish => Some("clear-before-publish"),
                Self::CommitBeforeWrite => Some("commit-before-write"),
                _ => None,
            }
        }
    }

    thread_local! {
        static PLANTED: RefCell<Vec<Fault>> = const { RefCell::new(Vec::new()) };
    }

    /// Plants exactly these faults for everything that runs on this thread.
    pub fn plant(faults: &[Fault]) {
        PLANTED.set(faults.to_vec());
    }

    impl Instant {
        fn name(self) -> &'static str {
            match self {
                Self::BeforeWrite => "before-write",
                Self::BeforePublish => "before-publish",
                Self::BeforeClear => "before-clear",
                Self::BeforeCommit => "before-commit",
                Self::AfterEarlyCommit => "after-early-commit",
            }
        }
    }

    /// Whether this fault is enabled.
    pub fn is_on(fault: Fault) -> bool {
        if PLANTED.with_borrow(|planted| planted.contains(&fault)) {
            return true;
        }
        static ON: OnceLock<Vec<String>> = OnceLock::new();
        let on = ON.get_or_init(|| {
            let names = std::env::var("TANDEM_FAULT").unwrap_or_default();
            let names: Vec<String> = names
                .split(',')
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect();
            for name in &names {
                tracing::error!(
                    fault = name,
                    "A FAULT IS PUT IN ON PURPOSE (TANDEM_FAULT): THIS PROCESS LOSES DATA"
                );
            }
            names
        });
        let name = fault.name();
        on.iter().any(|on| Some(on.as_str()) == name)
    }

    /// Aborts if this process was ordered to end at this instant. The place is the aggregate, topic or projection.
    pub(crate) fn abort_if_ordered(instant: Instant, place: &str) {
        if is_ordered(instant, place) {
            tracing::error!(instant = instant.name(), place, "aborting, as told");
            std::process::abort();
        }
    }

    /// Whether this process was ordered to end at this instant. Returns true only once for each order.
    pub(crate) fn is_ordered(instant: Instant, place: &str) -> bool {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let file = std::env::var_os("TANDEM_FAULT_FILE").map(PathBuf::from);
            if let Some(file) = &file {
                tracing::error!(
                    ?file,
                    "THIS PROCESS ABORTS WHEN TOLD TO, FOR A TEST (TANDEM_FAULT_FILE)"
                );
            }
            file
        });
        let Some(file) = file else { return false };
        let told = std::fs::read_to_string(file)
            .is_ok_and(|told| told.trim().split_once('@') == Some((instant.name(), place)));
        // Only the process that removes the file ends.
        told && std::fs::remove_file(file).is_ok()
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    use super::{Fault, Instant};

    /// Plants nothing: this build contains no faults.
    pub const fn plant(_: &[Fault]) {}

    /// Always false: this build contains no faults.
    #[must_use]
    pub const fn is_on(_: Fault) -> bool {
        false
    }

    pub(crate) const fn abort_if_ordered(_: Instant, _: &str) {}

    pub(crate) const fn is_ordered(_: Instant, _: &str) -> bool {
        false
    }
}

pub(crate) use switch::{abort_if_ordered, is_ordered};
pub use switch::{is_on, plant};
