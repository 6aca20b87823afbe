//! A target of a rebuild, as its caller sees it, whatever the kind of its data: it is rebuilt and checked, and rows are
//! removed and put back.

use std::sync::Arc;

use async_trait::async_trait;

use super::{
    Entries, Order, Outcome, Progress, RebuildError, Rebuilt, Unread, logged::Logged,
    newest_revisions::newest_of, progress::Reporter, reading::Reading, replay::Rebuild,
    retry::until_done, unlogged::PAGE,
};
use crate::{
    log::Log,
    store::{PublishedRow, StoreError},
};
use tandem_runtime::shutdown::Shutdown;

/// Something that can be rebuilt, for any kind of data.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// The name that progress reports show.
    fn name(&self) -> &'static str;

    /// The topic that it is rebuilt from.
    fn log(&self) -> &'static str;

    /// Rebuilds the target from the beginning of its topic to its end, and on to where the end has moved in the
    /// meantime. It removes and reverts nothing.
    ///
    /// It holds about 100 bytes for each aggregate in memory, and up to five batches of messages in its stages. It
    /// calls `tell` at every step.
    ///
    /// # Errors
    /// See [`RebuildError`].
    async fn rebuild(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        order: Order,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError>;

    /// Reads this part of the topic and writes revisions that are newer than the stored ones. It removes and reverts
    /// nothing.
    ///
    /// # Errors
    /// See [`RebuildError`].
    async fn catch_up(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        unread: Unread,
        shutdown: &Shutdown,
    ) -> Result<Progress, RebuildError>;

    /// Loads which of its events wait for a data key. Before that, nothing may be decided about the aggregates of these
    /// events.
    ///
    /// # Errors
    /// When the store is unavailable.
    async fn recall_waiting(&self) -> Result<(), StoreError>;

    /// The stored content of these rows, in the form for [`Self::take_back`]. `None` for a row that is no longer
    /// stored.
    ///
    /// # Errors
    /// When the store is unavailable.
    async fn keep_copies(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Removes these rows, each only if it is unchanged since it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is unavailable. Some rows may then be removed.
    async fn take_out(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Reverts these rows to the newest revision in the log, each only if it is unchanged since it was seen. Returns
    /// how many.
    ///
    /// # Errors
    /// See [`RebuildError`]. Some rows may then be reverted.
    async fn back_to_the_log(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        ahead: Vec<PublishedRow>,
        shutdown: &Shutdown,
    ) -> Result<u64, RebuildError>;

    /// Puts back what [`Self::keep_copies`] returned, unless something newer is stored. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the bytes are not such content. Also when the store is unavailable.
    async fn take_back(&self, contents: &[Vec<u8>]) -> Result<u64, StoreError>;
}

/// A rebuild that begins now.
fn begun<'a, R: Rebuilt>(
    target: Arc<R>,
    reading: Reading,
    order: Order,
    shutdown: &'a Shutdown,
    tell: &'a mut (dyn FnMut(Progress) + Send + Sync),
) -> Rebuild<'a, R> {
    let reporter = Reporter {
        begun: shutdown.clock().instant(),
        clock: shutdown.clock().clone(),
        progress: Progress {
            target: Rebuilt::name(target.as_ref()).to_owned(),
            ..Progress::default()
        },
        tell,
    };
    Rebuild {
        reading,
        logged: Logged::default(),
        target,
        order,
        differing: Vec::new(),
        shutdown,
        reporter,
    }
}

#[async_trait]
impl<R: Rebuilt> Target for R {
    fn name(&self) -> &'static str {
        Rebuilt::name(self)
    }

    fn log(&self) -> &'static str {
        self.topic()
    }

    async fn rebuild(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        order: Order,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<Outcome, RebuildError> {
        let reading = Reading::new(log, self.topic(), shutdown);
        let mut rebuild = begun(self, reading, order, shutdown, tell);
        rebuild.read_to_the_moving_end().await?;
        let lacking = rebuild.look_for_unlogged().await?;
        rebuild.reporter.progress.done = true;
        rebuild.reporter.step();
        Ok(Outcome {
            progress: rebuild.reporter.progress,
            lacking,
        })
    }

    async fn catch_up(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        unread: Unread,
        shutdown: &Shutdown,
    ) -> Result<Progress, RebuildError> {
        let Unread { from, to } = unread;
        let reading = Reading::at(log, self.topic(), from, shutdown);
        let mut nobody = |_: Progress| {};
        let mut rebuild = begun(self, reading, Order::default(), shutdown, &mut nobody);
        rebuild.read_to(&to).await?;
        rebuild.reporter.progress.done = true;
        rebuild.reporter.step();
        Ok(rebuild.reporter.progress)
    }

    async fn recall_waiting(&self) -> Result<(), StoreError> {
        match self.waiting() {
            Some(waiting) => waiting.load().await,
            None => Ok(()),
        }
    }

    async fn keep_copies(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.contents(seen).await
    }

    async fn take_out(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let mut removed = 0;
        for some in seen.chunks(PAGE) {
            removed += self.remove(some).await?;
        }
        Ok(removed)
    }

    async fn back_to_the_log(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        ahead: Vec<PublishedRow>,
        shutdown: &Shutdown,
    ) -> Result<u64, RebuildError> {
        let mut newest = newest_of(&self, log, &ahead, shutdown).await?;
        let rows: Vec<(PublishedRow, R::Row)> = ahead
            .into_iter()
            .filter_map(|seen| {
                let (revision, row) = newest.remove(&seen.id)?;
                (revision < seen.revision).then_some((seen, row))
            })
            .collect();
        let mut done = 0;
        for some in rows.chunks(PAGE) {
            done += until_done(self.as_ref(), shutdown, || self.revert(some)).await?;
        }
        Ok(done)
    }

    async fn take_back(&self, contents: &[Vec<u8>]) -> Result<u64, StoreError> {
        let mut rows = Vec::with_capacity(contents.len());
        // An empty content could not be read when it was copied, so there is nothing to put back.
        for content in contents.iter().filter(|content| !content.is_empty()) {
            let row = self.row_of(content);
            rows.push(row.map_err(|error| StoreError::Corrupt(error.to_string()))?);
        }
        rows.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        let rows: Vec<R::Row> = rows.into_iter().map(|(_, _, row)| row).collect();
        self.write(&rows, Entries::Replaced).await?;
        Ok(rows.len() as u64)
    }
}
