//! Counts refused records: those that were not signed by the service that owns the topic.

use metrics::SharedString;

/// The counter, by topic.
const REFUSED: &str = "events_refused_total";

/// Starts the counter of a topic at 0 before any record is refused. Rates count from the first sample of a series.
/// Without a sample of 0, the alert would miss a single refused record.
pub fn show(topic: &'static str) {
    metrics::counter!(REFUSED, "topic" => topic).increment(0);
}

/// Counts a refused record.
pub(crate) fn count(topic: impl Into<SharedString>) {
    let topic: SharedString = topic.into();
    metrics::counter!(REFUSED, "topic" => topic).increment(1);
}
