//! Faults that tests put in on purpose, to prove that the torture test would find them, and instants at which a process
//! ends as by `kill -9`. Compiled with debug assertions only: in a release build nothing of it is there.
//!
//! * `TANDEM_FAULT` names lasting faults, separated by commas: `clear-before-publish` (the relay forgets an event before
//!   it published it), `commit-before-write` (a projection commits a position ahead of what it has written).
//! * `TANDEM_FAULT_FILE` names a file. When it holds the name of an [`Instant`] and of its place, as in
//!   `before-publish@accounts.customer.change`, the process that gets there first removes the file and aborts, so that
//!   each file ends one process once.

/// A lasting fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The relay clears a pending event before it publishes it.
    ClearBeforePublish,
    /// A projection commits offsets before it writes.
    CommitBeforeWrite,
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
    /// Only with [`Fault::CommitBeforeWrite`]: its offsets are committed and nothing is written.
    AfterEarlyCommit,
}

#[cfg(debug_assertions)]
mod switch {
    use std::{path::PathBuf, sync::OnceLock};

    use super::{Fault, Instant};

    impl Fault {
        fn name(self) -> &'static str {
            match self {
                Self::ClearBeforePublish => "clear-before-publish",
                Self::CommitBeforeWrite => "commit-before-write",
            }
        }
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
    pub(crate) fn is_on(fault: Fault) -> bool {
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
        on.iter().any(|name| name == fault.name())
    }

    /// Aborts if this process was told to end at this instant. The place is the aggregate, topic or projection.
    pub(crate) fn abort_if_told(instant: Instant, place: &str) {
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
        let Some(file) = file else { return };
        let told = std::fs::read_to_string(file)
            .is_ok_and(|told| told.trim().split_once('@') == Some((instant.name(), place)));
        // Whoever removes it is the one.
        if told && std::fs::remove_file(file).is_ok() {
            tracing::error!(instant = instant.name(), place, "aborting, as told");
            std::process::abort();
        }
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    use super::{Fault, Instant};

    pub(crate) const fn is_on(_: Fault) -> bool {
        false
    }

    pub(crate) const fn abort_if_told(_: Instant, _: &str) {}
}

pub(crate) use switch::{abort_if_told, is_on};
