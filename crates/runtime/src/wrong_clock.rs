//! A time of day that tests can set wrong on purpose, for one process among many on a machine, and while it runs. It is
//! compiled only with debug assertions, like the faults of the event path. In a release build nothing of it exists, so
//! that nobody can set the clock of a production system through its environment.
//!
//! `TANDEM_CLOCK_DIRECTORY` names a directory with one file per process, named by the process id. The file holds by how
//! many seconds that process's clock is ahead, or behind if negative. It is read each time that the clock is. Waits and
//! time limits use the monotonic clock, which an administrator cannot set either.

#[cfg(debug_assertions)]
mod switch {
    use std::{
        path::{Path, PathBuf},
        sync::OnceLock,
        time::{Duration, SystemTime},
    };

    /// The time to show.
    pub(crate) fn set_wrong(now: SystemTime) -> SystemTime {
        static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
        let file = FILE.get_or_init(|| {
            let directory = std::env::var_os("TANDEM_CLOCK_DIRECTORY")?;
            let file = PathBuf::from(directory).join(std::process::id().to_string());
            tracing::error!(
                ?file,
                "THE CLOCK OF THIS PROCESS IS WRONG WHEN TOLD TO BE, FOR A TEST (TANDEM_CLOCK_DIRECTORY)"
            );
            Some(file)
        });
        match file {
            Some(file) => ahead(now, file),
            None => now,
        }
    }

    pub(super) fn ahead(now: SystemTime, file: &Path) -> SystemTime {
        let told = std::fs::read_to_string(file).ok();
        let seconds = told.and_then(|told| told.trim().parse::<i64>().ok());
        let seconds = seconds.unwrap_or_default();
        let by = Duration::from_secs(seconds.unsigned_abs());
        let wrong = if seconds < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        wrong.unwrap_or(now)
    }
}

#[cfg(not(debug_assertions))]
mod switch {
    use std::time::SystemTime;

    /// The real time, because this build has no switch.
    pub(crate) const fn set_wrong(now: SystemTime) -> SystemTime {
        now
    }
}

pub(crate) use switch::set_wrong;

#[cfg(all(test, debug_assertions))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, SystemTime};

    use super::switch::ahead;

    #[test]
    fn a_clock_is_as_far_ahead_or_behind_as_the_file_says() {
        let file = std::env::temp_dir().join(format!("tandem-clock-{}", std::process::id()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(ahead(now, &file), now);
        for (told, wanted) in [
            ("691200", now + Duration::from_secs(691_200)),
            ("-90\n", now - Duration::from_secs(90)),
            ("", now),
            ("soon", now),
            ("99999999999999999999", now),
        ] {
            std::fs::write(&file, told).unwrap();
            assert_eq!(ahead(now, &file), wanted, "{told}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
