//! A new, empty store fills itself from the log before it takes commands.

use std::sync::Arc;

use super::{Order, RebuildError, Target, retry::BACKOFF};
use crate::{
    commands::Gate,
    log::Log,
    store::{Registry, StoreError},
};
use tandem_runtime::shutdown::Shutdown;

/// What is done when the log that a new store is filled from has lost its beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TruncatedLog {
    /// The store does not open: who is not in the log may have been, and would be made a second time.
    Refused,
    /// The store takes what is left for all there ever was.
    Accepted,
}

/// Fills a new, empty store from the log, then opens the gate. A store that was filled before opens it at once.
///
/// Runs in the background and goes on trying until it is done or the service stops. The gate says meanwhile why it is closed.
pub fn fill_new_store(
    registry: Arc<dyn Registry>,
    targets: Vec<Arc<dyn Target>>,
    log: Arc<dyn Log>,
    gate: Gate,
    truncated: TruncatedLog,
    shutdown: &Shutdown,
) {
    let stopping = shutdown.clone();
    shutdown.spawn(async move {
        let filled = stopping.retry(
            BACKOFF,
            || fill(registry.as_ref(), &targets, &log, truncated, &stopping),
            |error, pause| {
                if !stopping.is_requested() {
                    gate.close_because(error.to_string());
                    tracing::warn!(%error, ?pause, "the new store could not be filled from the log; trying again");
                }
            },
        );
        if filled.await.is_some() {
            gate.let_through();
        }
    });
}

/// Under this name a store remembers that it was filled.
const FILLED: &str = "filled";

/// Remembers that a store holds what the log holds, so that it is not filled again.
///
/// # Errors
/// When the store does not answer.
pub async fn mark_filled(registry: &dyn Registry) -> Result<(), StoreError> {
    registry.remember(FILLED, "yes").await.map(drop)
}

/// Whether a store remembers that it was filled.
///
/// # Errors
/// When the store does not answer.
pub async fn is_filled(registry: &dyn Registry) -> Result<bool, StoreError> {
    Ok(registry.recall(FILLED).await?.is_some())
}

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// What was before is not known.
    #[error(
        "{topic} begins at offset {offset} of partition {partition}, so what was told before is gone: whoever was told of there alone is not known here, could be created a second time, and would be missing for good. Bring the whole log back, or start with --accept-truncated-log to take what is left for all there ever was"
    )]
    Truncated {
        topic: &'static str,
        partition: i32,
        offset: i64,
    },
}

async fn fill(
    registry: &dyn Registry,
    targets: &[Arc<dyn Target>],
    log: &Arc<dyn Log>,
    truncated: TruncatedLog,
    shutdown: &Shutdown,
) -> Result<(), FillError> {
    for target in targets {
        target.recall_waiting().await?;
    }
    if is_filled(registry).await? {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = shutdown.requested() => return Err(RebuildError::Stopping.into()),
        _ = log.ready() => {}
    }
    for target in targets {
        let topic = target.log();
        let ends = log.topic(topic).await.map_err(RebuildError::from)?.ends;
        let begun_late = ends.iter().find(|(_, (low, _))| *low > 0);
        let Some((&partition, &(offset, _))) = begun_late else {
            continue;
        };
        if truncated == TruncatedLog::Refused {
            return Err(FillError::Truncated {
                topic,
                partition,
                offset,
            });
        }
        tracing::warn!(
            topic,
            partition,
            offset,
            "the log has lost its beginning; what is left is taken for all there ever was, as was ordered"
        );
    }
    for target in targets {
        let outcome = Arc::clone(target)
            .rebuild(log, Order::default(), shutdown, &mut |_| {})
            .await?;
        let done = outcome.progress;
        if done.read > 0 {
            tracing::info!(
                target_name = done.target,
                read = done.read,
                written = done.written,
                seconds = done.seconds,
                "a new store was filled from the log"
            );
        }
    }
    Ok(mark_filled(registry).await?)
}
