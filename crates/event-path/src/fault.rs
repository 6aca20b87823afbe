//! Faults that tests put in on purpose, to prove that the torture test would find them, and instants at which a process
//! ends as by `kill -9`. Compiled with debug assertions only: in a release build nothing of it is there.
//!
//! * `TANDEM_FAULT` names lasting faults, separated by commas: `clear-before-publish` (the relay forgets an event before
//!   it published it), `commit-before-write` (a projection commits a position ahead of what it has written).
//! * [`plant`] puts lasting faults into what runs on one thread: a simulation shows that it finds each.
//! * `TANDEM_FAULT_FILE` names a file. When it holds the name of an `Instant` and of its place, as in
//!   `before-publish@accounts.customer.change`, the process that gets there first removes the file and aborts, so that
//!   each file ends one process once.

/// A lasting fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The relay clears a pending event before it publishes it.
    ClearBeforePublish,
    /// A projection commits offsets before it writes.
    CommitBeforeWrite,
    /// A writer offers the relay its own event alone, not what is pending of the key before it.
    HintTrusted,
    /// The relay sends the next event of a key before the one before it is acknowledged.
    KeyOrderOvertaken,
    /// The relay takes an event that was not acknowledged for one that was.
    FailureTakenForSuccess,
    /// The relay looks only at its start for what others left behind.
    SweptOnce,
    /// A projection drops what it read while a write took long.
    ReadMeanwhileDropped,
    /// Whose data key is not there is taken for erased.
    ErasedFromAbsence,
    /// An event that does not open is dropped.
    NotWaited,
    /// A rebuild waits for records where there are holes.
    HoleTakenForRecord,
    /// What nobody has signed is taken.
    SignatureNotChecked,
    /// A reader uses topics before anybody has claimed them.
    ClaimNotAwaited,
    /// A subscriber hears repeats.
    RepeatsNotKnown,
    /// A subscriber that resumes hears only what comes from then on.
    NotCaughtUp,
    /// A reader with a minimal revision gets whatever is there.
    MinimalRevisionIgnored,
    /// Orders keep the person when their customer is erased.
    PersonNotForgotten,
    /// A reader of its own writes does not wait for the audit trail.
    AuditNotAwaited,
    /// A log that is not the one that the store was made from raises no alarm.
    OtherLogNotTold,
    /// Of what a log has lost the part is not restored that it has older revisions of.
    RestoredByHalf,
    /// What was read of the topic of keys is believed to be there still, whatever somebody else has written behind it.
    OutlivedBelieved,
    /// A snapshot is read without a look whether its primary was deposed.
    BarrierNotPassed,
    /// What an older sealing key has sealed is written again as it was.
    SealedAsBefore,
    /// While the sealing key is replaced the log is not told of the cards that are sealed anew.
    ResealedCardsNotTold,
}

/// A moment at which a process can be told to end.
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
    /// Only with [`Fault::CommitBeforeWrite`]: its offsets are committed and nothing is written. The process goes on: a start would find what the
    /// store does not remember having read.
    AfterEarlyCommit,
}

#[cfg(debug_assertions)]
mod switch {
    use std::{cell::RefCell, path::PathBuf, sync::OnceLock};

    use super::{Fault, Instant};

    impl Fault {
        /// Its name in the environment; the others are planted by a simulation alone.
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

    /// Plants these faults, and no others, in all that runs on this thread.
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

    /// Whether this fault was put in.
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

    /// Aborts if this process was told to end at this instant. The place is the aggregate, topic or projection.
    pub(crate) fn abort_if_ordered(instant: Instant, place: &str) {
        if is_ordered(instant, place) {
            tracing::error!(instant = instant.name(), place, "aborting, as told");
            std::process::abort();
        }
    }

    /// Whether this process was ordered to end at this instant; once.
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
        // The process that removes it is the one to end.
        told && std::fs::remove_file(file).is_ok()
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    use super::{Fault, Instant};

    /// Plants nothing: there is nothing of it in this build.
    pub const fn plant(_: &[Fault]) {}

    /// Never: there is nothing of it in this build.
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
