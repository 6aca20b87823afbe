//! A lock for tests that need the machine to themselves.
//!
//! A failover test with three brokers measures only load when three others run beside it.

use std::fs::File;

use crate::Error;

/// The lock. It is released when this is dropped.
#[derive(Debug)]
#[must_use = "the turn ends as soon as this is dropped"]
pub struct Solo {
    _lock: File,
}

/// Waits until no other test, of this process or another, holds the lock. Take it before any server is started, and
/// only once per test.
///
/// # Errors
/// When the lock file in the temporary directory cannot be opened.
pub async fn solo() -> Result<Solo, Error> {
    let lock = File::create(std::env::temp_dir().join("tandem-backends-solo"))?;
    tokio::task::spawn_blocking(move || lock.lock().map(|()| Solo { _lock: lock }))
        .await
        .map_err(std::io::Error::other)?
        .map_err(Error::from)
}
