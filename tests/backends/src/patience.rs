//! Waiting for what happens soon and not at once.

use std::time::{Duration, Instant};

/// How long a test waits for anything: much longer than it takes, for a machine may be slow.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until it is so, for at most 60 s.
///
/// # Panics
/// When it never is; `what` says what was waited for.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
