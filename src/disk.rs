//! The disk of a directory: its free space, and advice for a directory that cannot be written.

use std::{
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
};

/// Less free space than this, in bytes, is reported as too little.
pub(crate) const TOO_LITTLE: u64 = 100 * 1024 * 1024;

/// What to do about a directory that cannot be written for this reason.
pub(crate) fn advice(reason: &Error) -> &'static str {
    match reason.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room on its disk, or choose a directory on another one"
        }
        ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
            "a file is where a directory should be: choose another one"
        }
        _ => "choose a directory that this user may write",
    }
}

/// Free bytes on the disk where the directory is or would be. `None` if the system does not report it.
pub(crate) fn free_bytes(directory: &Path) -> Option<u64> {
    let on = existing_parent(directory);
    let space = rustix::fs::statvfs(&on).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

/// The directory itself, or its nearest ancestor that exists.
pub(crate) fn existing_parent(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.ancestors()
        .find(|ancestor| ancestor.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

/// The warning to print before a start on a disk that is almost full.
pub(crate) fn short_of_room(directory: &Path) -> Option<String> {
    told_of_room(free_bytes(directory)?, directory)
}

fn told_of_room(free: u64, directory: &Path) -> Option<String> {
    (free < TOO_LITTLE).then(|| {
        format!(
            "only {} MiB are free for {}: what finds no room is refused; make room, or choose a directory on another disk with --data-dir",
            free / (1024 * 1024),
            directory.display()
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_disk_that_is_almost_full_is_told_of_before_anything_fails() {
        let told = told_of_room(3 * 1024 * 1024 + 1, Path::new("/data")).unwrap();
        assert!(told.starts_with("only 3 MiB are free for /data"), "{told}");
        assert_eq!(told_of_room(TOO_LITTLE, Path::new("/data")), None);
    }

    #[test]
    fn what_is_advised_about_a_directory_fits_the_reason() {
        for (kind, expected) in [
            (ErrorKind::StorageFull, "make room"),
            (ErrorKind::AlreadyExists, "a file is"),
            (ErrorKind::PermissionDenied, "may write"),
        ] {
            assert!(advice(&Error::from(kind)).contains(expected), "{kind}");
        }
    }
}
