//! Finds rows that are stored and missing in the log. It reads the store first, then the log to its end. Only then a
//! row counts as missing.

use super::{Keeps, Lacking, RebuildError, Rebuilt, replay::Rebuild, retry::until_done};
use crate::store::PublishedRow;

/// Stored rows that are read, removed or reverted at once.
pub(super) const PAGE: usize = 1_000;

impl<R: Rebuilt> Rebuild<'_, R> {
    /// Returns what is stored and missing in the log.
    pub(super) async fn look_for_unlogged(&mut self) -> Result<Vec<Lacking>, RebuildError> {
        let differing = std::mem::take(&mut self.differing);
        let mut lacking: Vec<Lacking> = differing.into_iter().map(Lacking::Differing).collect();
        if !self.order.looks {
            return Ok(lacking);
        }
        let mut missed = self.look().await?;
        if missed.is_empty() {
            return Ok(lacking);
        }
        // Everything that was published before the look is known after this.
        self.read_to_the_end_as_of_now().await?;
        let keeps = self.target.keeps();
        missed.retain(|seen| self.misses(seen));
        for seen in missed {
            if keeps == Keeps::Each && self.logged.is_before_restored(&seen) {
                self.reporter.progress.only_stored += 1;
                continue;
            }
            tracing::warn!(
                target_name = self.target.name(),
                id = seen.id,
                revision = seen.revision,
                "stored, and not in the log"
            );
            if keeps == Keeps::Newest && self.logged.knows(&seen.id) {
                self.reporter.progress.ahead += 1;
                lacking.push(Lacking::Ahead(seen));
            } else {
                self.reporter.progress.unknown += 1;
                self.reporter.progress.gaps += u64::from(self.logged.knows(&seen.id));
                lacking.push(Lacking::Unknown(seen));
            }
        }
        Ok(lacking)
    }

    fn misses(&self, seen: &PublishedRow) -> bool {
        let may_be_unread = !self.order.restores && self.logged.is_doubtful(&seen.id);
        !may_be_unread && self.logged.misses(seen, self.target.keeps())
    }

    /// Reads all stored rows with nothing pending. Returns those that the log has not shown so far.
    async fn look(&self) -> Result<Vec<PublishedRow>, RebuildError> {
        let target = self.target.as_ref();
        let mut missed = Vec::new();
        let mut last: Option<PublishedRow> = None;
        loop {
            let after = last.as_ref();
            let page = until_done(target, self.shutdown, || target.published(after, PAGE)).await?;
            missed.extend(page.iter().filter(|seen| self.misses(seen)).cloned());
            match page.into_iter().next_back() {
                Some(seen) => last = Some(seen),
                None => return Ok(missed),
            }
        }
    }
}
