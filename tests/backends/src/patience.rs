//! Polling for a condition that becomes true soon.

use std::time::{Duration, Instant};

/// How long a test waits for anything. Much longer than it takes, because a machine may be slow.
const LIMIT: Duration = Duration::from_secs(60);
/// The pause between two checks.
const PAUSE: Duration = Duration::from_millis(20);

/// Polls until the condition holds, for at most 60 s.
///
/// # Panics
/// When it never holds. `what` names the condition.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < LIMIT, "never: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
