//! The number of connections that the limit of open files permits.
//!
//! Each connection needs one file descriptor, or more if it needs connections behind it. The process needs some for
//! itself.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::settings::DEFAULT_CONNECTIONS;

/// File descriptors for the stores, the logs and the process's own connections.
const RESERVE: u64 = 512;

/// As many connections as configured, or as many as there are file descriptors for, if each needs `files_each`.
///
/// It raises the limit of the process as far as the system permits. It logs a warning only if an operator configured a
/// number that is not possible. The default means as many as possible.
pub(crate) fn connections(set: Option<usize>, files_each: u64) -> usize {
    let wanted = set.unwrap_or(DEFAULT_CONNECTIONS);
    let mut limit = getrlimit(Resource::Nofile);
    let needed = needed(wanted, files_each);
    let highest = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed.min(highest));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::info!(%error, "the limit of open files cannot be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let files = limit.current.unwrap_or(u64::MAX);
    let most = within(wanted, files_each, files);
    if is_worth_a_warning(set, most) {
        tracing::warn!(
            wanted,
            most,
            files,
            "fewer connections are taken than --max-connections says: the limit of open files is lower (`ulimit -Hn`)"
        );
    } else if most < wanted {
        tracing::debug!(
            most,
            files,
            "the limit of open files bounds the connections"
        );
    }
    most
}

/// Whether an operator gets less than the settings say.
fn is_worth_a_warning(set: Option<usize>, most: usize) -> bool {
    set.is_some_and(|set| most < set)
}

/// File descriptors that this many connections need, and the process in addition.
fn needed(wanted: usize, files_each: u64) -> u64 {
    (wanted as u64)
        .saturating_mul(files_each)
        .saturating_add(RESERVE)
}

/// If there are few file descriptors, at least half of them are for connections.
fn within(wanted: usize, files_each: u64, files: u64) -> usize {
    let left = files.saturating_sub(RESERVE).max(files / 2) / files_each.max(1);
    usize::try_from(left).map_or(wanted, |left| wanted.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_process_files_of_its_own() {
        assert_eq!(within(20_000, 1, 1_048_576), 20_000);
        assert_eq!(within(20_000, 1, 20_000), 19_488);
        assert_eq!(within(20_000, 1, 1_024), 512);
        assert_eq!(within(20_000, 1, 256), 128);
        assert_eq!(within(100, 1, 1_024), 100);
    }

    #[test]
    fn where_each_needs_another_one_behind_it_there_are_files_for_both() {
        assert_eq!(needed(DEFAULT_CONNECTIONS, 1), 20_512);
        let raised = needed(DEFAULT_CONNECTIONS, 2);
        assert_eq!(raised, 40_512);
        assert_eq!(within(DEFAULT_CONNECTIONS, 2, raised), DEFAULT_CONNECTIONS);
        assert_eq!(within(DEFAULT_CONNECTIONS, 2, 20_512), 10_000);
    }

    #[test]
    fn only_a_number_that_somebody_has_set_and_that_cannot_be_had_is_warned_of() {
        let most = within(DEFAULT_CONNECTIONS, 1, 20_000);
        assert!(most < DEFAULT_CONNECTIONS && !is_worth_a_warning(None, most));
        assert!(is_worth_a_warning(Some(DEFAULT_CONNECTIONS), most));
        assert!(!is_worth_a_warning(Some(100), within(100, 1, 20_000)));
    }
}
