//! A rebuild in progress: replays the log up to its end, which moves in the meantime.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, future::ready};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Order, Progress, RebuildError, Rebuilt,
    logged::Logged,
    progress::Reporter,
    reading::{Ahead, Reading, early},
    writing::{Prepared, prepare, write},
};
use crate::log::Ends;
use tandem_runtime::shutdown::Shutdown;

/// After two rounds, fewer messages than this behind the end count as the end.
const NEAR: u64 = 1_000;
/// Batches being written at once.
const WRITES: usize = 2;

/// A rebuild in progress.
pub(super) struct Rebuild<'a, R: Rebuilt> {
    pub(super) target: Arc<R>,
    pub(super) order: Order,
    pub(super) reading: Reading,
    pub(super) logged: Logged,
    /// Entries that were left with content that differs from the log's.
    pub(super) differing: Vec<Vec<u8>>,
    pub(super) shutdown: &'a Shutdown,
    pub(super) reporter: Reporter<'a>,
}

impl<R: Rebuilt> Rebuild<'_, R> {
    pub(super) async fn read_to_the_moving_end(&mut self) -> Result<(), RebuildError> {
        let mut rounds = 0;
        loop {
            let ends = self.reading.ends().await?;
            let left = self.reading.left(&ends);
            // Under traffic the end keeps moving. Messages of the last short round also reach the store the normal way.
            rounds += 1;
            if left == 0 || (rounds > 2 && left < NEAR) {
                if let Some((partition, (low, _))) = ends.iter().find(|(_, (low, _))| *low > 0) {
                    self.reporter.progress.of_the_log = Some(format!(
                        "{} begins at offset {low} of partition {partition}: what is not in it may have been",
                        self.target.topic()
                    ));
                }
                return Ok(());
            }
            self.read_to(&ends).await?;
        }
    }

    pub(super) async fn read_to_the_end_as_of_now(&mut self) -> Result<(), RebuildError> {
        let ends = self.reading.ends().await?;
        if self.reading.left(&ends) == 0 {
            return Ok(());
        }
        self.read_to(&ends).await
    }

    /// Reads to these ends and writes the rows.
    pub(super) async fn read_to(&mut self, ends: &Ends) -> Result<(), RebuildError> {
        let Self {
            target,
            reading,
            logged,
            shutdown,
            reporter,
            order,
            differing,
            ..
        } = self;
        reporter.progress.total = reporter.progress.read + reading.left(ends);
        reporter.step();
        let mut ahead = reading.start(ends)?;
        let (prepared_in, prepared) = mpsc::channel::<Prepared<R::Row>>(1);
        let preparing = async {
            while let Some(messages) = ahead.batches.recv().await {
                let batch = prepare(target, logged, messages, shutdown).await?;
                if prepared_in.send(batch).await.is_err() {
                    break;
                }
            }
            drop(prepared_in);
            Ok::<_, RebuildError>(())
        };
        // While one batch is being committed, the next is being encoded. The order of the writes does not matter.
        let written = ReceiverStream::new(prepared)
            .map(|batch| write(target, batch, *order, shutdown))
            .buffered(WRITES);
        let writing = written.try_for_each(|batch| {
            let progress = &mut reporter.progress;
            progress.read += batch.read;
            progress.total = progress.total.max(progress.read);
            progress.written += batch.written;
            progress.refused += batch.refused;
            progress.revert += batch.differing.replaced;
            progress.differing += batch.differing.left.len() as u64;
            progress.only_stored += batch.differing.only_stored;
            differing.extend(batch.differing.left);
            progress.waiting += batch.waiting;
            reporter.step();
            ready(Ok(()))
        });
        tokio::select! {
            biased;
            () = shutdown.requested() => return Err(RebuildError::Stopping),
            done = async { tokio::try_join!(preparing, writing) } => done?,
        };
        self.finish(ahead).await
    }

    async fn finish(&mut self, ahead: Ahead) -> Result<(), RebuildError> {
        let ended = self.reading.finish(ahead).await;
        let Progress { read, total, .. } = self.reporter.progress;
        ended.map_err(|ended| early(&ended, self.target.topic(), read, total))
    }
}
