//! What a client says of its connection while it reads: news, not failures.
//!
//! librdkafka reconnects by itself, with pauses of its own, and tells of each try. Whoever paused at every such word would
//! still be pausing long after the brokers came back.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rdkafka::error::KafkaError;
use tokio::time::{Instant, sleep};

/// The same trouble is told once in this time.
const SILENCE: Duration = Duration::from_secs(5);
/// Between two words of a client, so that a client which repeats itself at once takes no whole processor.
const BREATH: Duration = Duration::from_millis(10);

/// Tells of trouble now and then.
#[derive(Debug)]
pub(crate) struct Trouble {
    reader: String,
    told: Mutex<Option<Instant>>,
}

impl Trouble {
    /// The trouble of a reader of this name.
    pub(crate) fn of(reader: impl Into<String>) -> Self {
        Self {
            reader: reader.into(),
            told: Mutex::new(None),
        }
    }

    /// Takes note of what the client said.
    pub(crate) async fn heard(&self, error: &KafkaError) {
        let now = Instant::now();
        let is_new = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = told.is_none_or(|told| now - told >= SILENCE);
            if is_new {
                *told = Some(now);
            }
            is_new
        };
        if is_new {
            tracing::warn!(reader = self.reader, %error, "Kafka is away or answers with an error; reading goes on when it is back");
        } else {
            tracing::debug!(reader = self.reader, %error, "Kafka is away or answers with an error");
        }
        sleep(BREATH).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_words_of_trouble_hold_nobody_up() {
        let trouble = Trouble::of("a test");
        let begun = Instant::now();
        for _ in 0..100 {
            trouble.heard(&KafkaError::Canceled).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}
