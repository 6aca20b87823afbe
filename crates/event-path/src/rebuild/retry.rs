//! Retries requests of a rebuild to the store until they succeed, so an unavailable store delays a rebuild and does not
//! end it.

use std::time::Duration;

use super::{RebuildError, Rebuilt};
use crate::store::StoreError;
use tandem_runtime::{backoff::Backoff, shutdown::Shutdown};

/// The pauses while the store or the log is unavailable.
pub(super) const BACKOFF: Backoff =
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Retries until it succeeds, with growing pauses. Does not retry if the store holds corrupt data.
pub(super) async fn until_done<R: Rebuilt, T, F>(
    target: &R,
    shutdown: &Shutdown,
    attempt: impl Fn() -> F,
) -> Result<T, RebuildError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let attempt = async || match attempt().await {
        // A retry would read the same data.
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
