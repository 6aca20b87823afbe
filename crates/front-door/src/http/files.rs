//! Open files: each connection is one, or more where it needs others behind it, and the process needs some for itself.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::settings::DEFAULT_CONNECTIONS;

/// What a process keeps for its stores, its logs and its own connections.
const RESERVE: u64 = 512;

/// As many connections as are wanted, or as there may be files for where each needs so many. The limit of the process is raised as far as the
/// system lets it. The log warns where somebody has set the number and it cannot be had; where nobody has, as many as there may be are what is
/// wanted.
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

/// Whether an operator is not given what the settings say.
fn is_worth_a_warning(set: Option<usize>, most: usize) -> bool {
    set.is_some_and(|set| most < set)
}

/// Files that so many connections need, and the process beside them.
fn needed(wanted: usize, files_each: u64) -> u64 {
    (wanted as u64)
        .saturating_mul(files_each)
        .saturating_add(RESERVE)
}

/// At least half of the files are connections' where there are few.
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
