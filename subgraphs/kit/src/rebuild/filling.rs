//! A new, empty store fills itself from the log before it takes commands.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{FIRST_PAUSE, LONGEST_PAUSE, RebuildError, Target, Unlogged};
use crate::{
    commands::Gate,
    kafka::connection::Kafka,
    shutdown::Shutdown,
    store::{Registry, StoreError},
};

/// Fills a new, empty store from the log, then opens the gate. A store that was filled before opens it at once.
///
/// Runs in the background and goes on trying until it is done or the service stops.
pub fn fill_new_store(
    registry: Arc<dyn Registry>,
    targets: Vec<Arc<dyn Target>>,
    kafka: Kafka,
    gate: Gate,
    shutdown: &Shutdown,
) {
    let stop = shutdown.token();
    shutdown.spawn(async move {
        let mut pause = FIRST_PAUSE;
        loop {
            match fill(registry.as_ref(), &targets, &kafka, &stop).await {
                Ok(()) => {
                    gate.let_through();
                    return;
                }
                Err(FillError::Rebuild(RebuildError::Stopping)) => return,
                Err(error) => {
                    tracing::warn!(%error, ?pause, "the new store could not be filled from the log; trying again");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
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

#[derive(Debug, thiserror::Error)]
enum FillError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
}

async fn fill(
    registry: &dyn Registry,
    targets: &[Arc<dyn Target>],
    kafka: &Kafka,
    stop: &CancellationToken,
) -> Result<(), FillError> {
    if registry.recall(FILLED).await?.is_some() {
        return Ok(());
    }
    tokio::select! {
        () = stop.cancelled() => return Err(RebuildError::Stopping.into()),
        _ = kafka.ready() => {}
    }
    for target in targets {
        let done = Arc::clone(target)
            .rebuild(kafka, Unlogged::Ignored, stop, &mut |_| {})
            .await?;
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
