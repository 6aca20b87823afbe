//! Open files: each connection is one, and the process needs some for itself.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What a process keeps for its stores, its logs and its own connections.
const RESERVE: u64 = 512;

/// As many connections as are wanted, or as there may be files for. The limit of the process is raised as far as the system lets it.
pub(crate) fn connections(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = (wanted as u64).saturating_add(RESERVE);
    let highest = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(needed.min(highest));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            limit = getrlimit(Resource::Nofile);
        }
    }
    let files = limit.current.unwrap_or(u64::MAX);
    let most = within(wanted, files);
    if most < wanted {
        tracing::warn!(
            wanted,
            most,
            files,
            "fewer connections are taken than the settings allow: the limit of open files is lower"
        );
    }
    most
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
}
