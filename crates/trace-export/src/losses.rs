//! Spans that do not reach the collector. Each one is counted, and the log reports them at most once a minute.
#![expect(clippy::disallowed_methods, reason = "it only limits a log")]

use std::{
    fmt::Display,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The counter of lost spans.
const LOST: &str = "trace_spans_lost_total";
/// The shortest time between two log messages about losses.
const SILENCE: Duration = Duration::from_secs(60);

/// Counts the spans that are lost on the way to a collector.
#[derive(Debug)]
pub(crate) struct Losses {
    endpoint: String,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    last: Option<Instant>,
    /// Spans that were lost since then.
    since: u64,
}

impl Losses {
    /// Counts for this collector.
    pub(crate) fn on_the_way_to(endpoint: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            told: Mutex::default(),
        }
    }

    /// Registers the counter even if nothing is lost: a counter that begins with the first loss would show no increase.
    /// The metrics recorder is installed after the exporter, so this must be called with each message.
    pub(crate) fn show() {
        metrics::counter!(LOST).increment(0);
    }

    /// Counts lost spans, and logs them at most once a minute.
    pub(crate) fn count(&self, spans: usize, reason: &dyn Display) {
        let spans = spans as u64;
        metrics::counter!(LOST).increment(spans);
        if let Some(spans) = self.to_be_logged(spans) {
            tracing::warn!(
                endpoint = self.endpoint,
                spans,
                %reason,
                "spans do not reach the collector and are lost; requests do not wait for it"
            );
        }
    }

    /// The number of losses since the last log message, if a new message is due.
    fn to_be_logged(&self, spans: u64) -> Option<u64> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.since += spans;
        if told.last.is_some_and(|last| last.elapsed() < SILENCE) {
            return None;
        }
        told.last = Some(Instant::now());
        Some(std::mem::take(&mut told.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_of_once_a_minute_with_how_many_there_were() {
        let losses = Losses::on_the_way_to("http://there");
        assert_eq!(losses.to_be_logged(2), Some(2));
        assert_eq!(losses.to_be_logged(3), None);
        assert_eq!(losses.to_be_logged(4), None);
        if let Ok(mut told) = losses.told.lock() {
            told.last = Instant::now().checked_sub(SILENCE);
        }
        assert_eq!(losses.to_be_logged(1), Some(8));
    }
}
