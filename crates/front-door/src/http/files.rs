//! Open files: each connection is one, and the process needs some for itself.

use rustix::process::{Resource, getrlimit, setrlimit};

use crate::settings::DEFAULT_CONNECTIONS;

/// What a process keeps for its stores, its logs and its own connections.
const RESERVE: u64 = 512;

/// As many connections as are wanted, or as there may be files for. The limit of the process is raised as far as the system lets it. The
/// log warns where somebody has set the number and it cannot be had; where nobody has, as many as there may be are what is wanted.
pub(crate) fn connections(set: Option<usize>) -> usize {
    let wanted = set.unwrap_or(DEFAULT_CONNECTIONS);
    let mut limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(RESERVE);
    let highest = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed.min(highest));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::info!(%error, "the limit of open files cannot be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let files = limit.current.unwrap_or(u64::MAX);
    let most = within(wanted, files);
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

/// At least half of the files are connections' where there are few.
fn within(wanted: usize, files: u64) -> usize {
    let left = files.saturating_sub(RESERVE).max(files / 2);
    usize::try_from(left).map_or(wanted, |left| wanted.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_the_process_files_of_its_own() {
        assert_eq!(within(20_000, 1_048_576), 20_000);
        assert_eq!(within(20_000, 20_000), 19_488);
        assert_eq!(within(20_000, 1_024), 512);
        assert_eq!(within(20_000, 256), 128);
        assert_eq!(within(100, 1_024), 100);
    }

    #[test]
    fn only_a_number_that_somebody_has_set_and_that_cannot_be_had_is_warned_of() {
        let most = within(DEFAULT_CONNECTIONS, 20_000);
        assert!(most < DEFAULT_CONNECTIONS && !is_worth_a_warning(None, most));
        assert!(is_worth_a_warning(Some(DEFAULT_CONNECTIONS), most));
        assert!(!is_worth_a_warning(Some(100), within(100, 20_000)));
    }
}
