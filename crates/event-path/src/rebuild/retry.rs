//! What a rebuild asks of the store is tried until it is done: a store that is away delays a rebuild and does not end it.

use std::time::Duration;

use super::{RebuildError, Rebuilt};
use crate::store::StoreError;
use tandem_runtime::{backoff::Backoff, shutdown::Shutdown};

/// The pauses while store or log are away.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Tries until it is done, with growing pauses; not when the store holds what it should not.
pub(super) async fn until_done<R: Rebuilt, T, F>(
    target: &R,
    shutdown: &Shutdown,
    attempt: impl Fn() -> F,
) -> Result<T, RebuildError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let attempt = async || match attempt().await {
        // It will not read better the next time.
        Err(error @ StoreError::Corrupt(_)) => Ok(Err(error)),
        Ok(done) => Ok(Ok(done)),
        Err(error) => Err(error),
    };
    let done = shutdown.retry(BACKOFF, attempt, |error: &StoreError, pause| {
        tracing::warn!(target_name = target.name(), %error, ?pause, "the store is away; trying again");
    });
    done.await
        .ok_or(RebuildError::Stopping)?
        .map_err(RebuildError::BrokenOff)
}
