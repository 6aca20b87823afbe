//! Counts records that are refused, because the service whose topic it is has not signed them.

use metrics::SharedString;

/// The counter, by topic.
const REFUSED: &str = "events_refused_total";

/// Shows the counter of a topic before anything is refused: a series that begins with the first record is no increase, and the alert on it
/// would never hear of one that comes alone.
pub fn show(topic: &'static str) {
    metrics::counter!(REFUSED, "topic" => topic).increment(0);
}

/// Counts a record that is refused.
pub(crate) fn count(topic: impl Into<SharedString>) {
    let topic: SharedString = topic.into();
    metrics::counter!(REFUSED, "topic" => topic).increment(1);
}
