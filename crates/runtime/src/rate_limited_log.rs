//! A rate-limited log for errors that a client reports about its connection while it reads. They are notices, not
//! failures.
//!
//! librdkafka reconnects by itself, with its own backoff, and reports each attempt. A reader that paused at each report
//! would still be pausing long after the brokers are back.

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::clock::{Clock, Instant};

/// The shortest time between two warnings.
const SILENCE: Duration = Duration::from_secs(5);
/// The pause after each error, so that a client that repeats its error at once does not use a whole processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Logs the errors of one reader as warnings, at most one in five seconds.
#[derive(Debug)]
pub struct RateLimitedLog {
    reader: String,
    clock: Clock,
    warned: Mutex<Option<Instant>>,
}

impl RateLimitedLog {
    /// The log of the reader with this name.
    pub fn new(reader: impl Into<String>, clock: &Clock) -> Self {
        Self {
            reader: reader.into(),
            clock: clock.clone(),
            warned: Mutex::new(None),
        }
    }

    /// Logs the client's error, and pauses for a moment.
    pub async fn error(&self, error: &(impl Display + Sync)) {
        let now = self.clock.instant();
        let is_new = {
            let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = warned.is_none_or(|warned| now - warned >= SILENCE);
            if is_new {
                *warned = Some(now);
            }
            is_new
        };
        if is_new {
            tracing::warn!(reader = self.reader, %error, "Kafka is away or answers with an error; reading goes on when it is back");
        } else {
            tracing::debug!(reader = self.reader, %error, "Kafka is away or answers with an error");
        }
        self.clock.sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_errors_hold_nobody_up() {
        let clock = Clock::default();
        let log = RateLimitedLog::new("a test", &clock);
        let begun = clock.instant();
        for _ in 0..100 {
            log.error(&"the brokers are away").await;
        }
        assert!(clock.since(begun) < Duration::from_secs(2));
    }
}
