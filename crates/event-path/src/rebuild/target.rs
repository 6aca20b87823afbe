//! A target of a rebuild as its caller sees it, of whatever kind its data is: it is rebuilt, checked, and rows are taken out of it and put back.

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

/// Something that can be rebuilt, whatever it is made of.
#[async_trait]
pub trait Target: Send + Sync + 'static {
    /// What it is called, as progress shows it.
    fn name(&self) -> &'static str;

    /// The topic it is rebuilt from.
    fn log(&self) -> &'static str;

    /// Rebuilds it from the beginning of its topic to its end, and on to where the end has moved meanwhile. It removes nothing and
    /// sets nothing back.
    ///
    /// It holds in memory about 100 bytes for each aggregate, and up to five batches of messages in their stages. `tell` hears of
    /// every step.
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

    /// Reads this part of its topic and takes of it what is newer than what is stored. It removes nothing and sets nothing back.
    ///
    /// # Errors
    /// See [`RebuildError`].
    async fn catch_up(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        unread: Unread,
        shutdown: &Shutdown,
    ) -> Result<Progress, RebuildError>;

    /// Reads which events of it wait for a data key: whose aggregates they are is not to be decided on before.
    ///
    /// # Errors
    /// When the store is away.
    async fn recall_waiting(&self) -> Result<(), StoreError>;

    /// What is stored of these, as it would be taken back; `None` for what is no longer stored.
    ///
    /// # Errors
    /// When the store is away.
    async fn keep_copies(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Removes these, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// When the store is away; some may then be removed.
    async fn take_out(&self, seen: &[PublishedRow]) -> Result<u64, StoreError>;

    /// Puts what the log tells last in the place of these, each only if it is still as it was seen. Returns how many.
    ///
    /// # Errors
    /// See [`RebuildError`]; some may then be set back.
    async fn back_to_the_log(
        self: Arc<Self>,
        log: &Arc<dyn Log>,
        ahead: Vec<PublishedRow>,
        shutdown: &Shutdown,
    ) -> Result<u64, RebuildError>;

    /// Takes back what [`Self::keep_copies`] answered, unless something newer is stored. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when it is no such content; when the store is away.
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
        // What could not be read is nothing to take back.
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
