//! Counts what a rebuild did not change in the store, over all rebuilt topics, and says what an operator can do about
//! each kind.

use tandem_event_path::rebuild::Progress;

/// Entries in the store that differ from the log.
#[derive(Default)]
pub(super) struct Counts {
    unknown: u64,
    gaps: u64,
    ahead: u64,
    differing: u64,
    only_stored: u64,
    pub(super) revert: u64,
}

impl Counts {
    pub(super) fn add(&mut self, progress: &Progress) {
        self.unknown += progress.unknown;
        self.gaps += progress.gaps;
        self.ahead += progress.ahead;
        self.differing += progress.differing;
        self.only_stored += progress.only_stored;
        self.revert += progress.revert;
    }

    /// What is left and may be removed on an order. `None` if nothing is.
    pub(super) fn left(&self) -> Option<String> {
        let Self {
            unknown,
            gaps,
            ahead,
            differing,
            ..
        } = self;
        let count = unknown + ahead + differing;
        if count == 0 {
            return None;
        }
        let mut told = format!(
            "{count} stored are not as the log has them ({unknown} unknown to it, {ahead} ahead of it, {differing} with another content): left as they are."
        );
        if unknown + ahead > *gaps {
            told += " To put the log right: tandem log restore.";
        }
        // A restored log gets only the newest states.
        let entries = gaps + differing;
        if entries > 0 {
            told += &format!(
                " {entries} of them are entries of the history, which no log restore changes in the log."
            );
        }
        told += &format!(" To remove them: --remove-what-the-log-lacks --confirm-removals {count}");
        Some(told)
    }

    /// What is only in the store and stays there. `None` if nothing is.
    pub(super) fn kept(&self) -> Option<String> {
        let kept = self.only_stored;
        (kept > 0).then(|| {
            format!("{kept} history entries are only in the store, since the log was restored: they stay")
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_restoring_of_the_log_is_advised_where_it_helps() {
        let left = |(unknown, gaps, ahead, differing)| {
            let mut counts = Counts::default();
            counts.add(&Progress {
                unknown,
                gaps,
                ahead,
                differing,
                ..Progress::default()
            });
            counts.left()
        };
        assert_eq!(left((0, 0, 0, 0)), None);
        for lost in [(2, 1, 0, 0), (0, 0, 1, 0), (1, 0, 0, 3)] {
            assert!(
                left(lost)
                    .unwrap()
                    .contains("log right: tandem log restore")
            );
        }
        let history = left((2, 2, 0, 3)).unwrap();
        assert!(!history.contains("log right"), "{history}");
        assert!(history.contains("5 of them are entries"), "{history}");
        assert!(history.ends_with("--confirm-removals 5"), "{history}");
    }

    #[test]
    fn what_a_restored_log_lacks_is_not_offered_for_removal() {
        let mut counts = Counts::default();
        assert_eq!(counts.kept(), None);
        counts.add(&Progress {
            only_stored: 14,
            ..Progress::default()
        });
        assert_eq!(counts.left(), None);
        assert!(counts.kept().unwrap().starts_with("14 history entries"));
    }
}
