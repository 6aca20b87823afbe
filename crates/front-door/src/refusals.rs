//! Counts refused requests and connections, by reason.

/// The counter.
const REFUSALS: &str = "front_door_refusals_total";
/// Subscriptions that ended because their client read too slowly.
pub(crate) const LAGGED: &str = "front_door_lagged_subscriptions_total";

/// Why anything is refused: whoever refuses for another reason adds it here.
const REASONS: [&str; 26] = [
    "accept",
    "answer",
    "body",
    "certificate",
    "connections",
    "cost",
    "depth",
    "document_id",
    "head",
    "host",
    "internal",
    "limit",
    "media_type",
    "method",
    "mutation_by_get",
    "operation",
    "origin",
    "path",
    "persisted_query",
    "rate",
    "request",
    "single_connection",
    "syntax",
    "token",
    "untrusted",
    "validation",
];

/// Shows the counters before anything is refused: a series that begins with the first refusal is no increase.
pub(crate) fn show() {
    for reason in REASONS {
        metrics::counter!(REFUSALS, "reason" => reason).increment(0);
    }
    metrics::counter!(LAGGED).increment(0);
}

/// Counts a refusal.
pub(crate) fn count(reason: &'static str) {
    metrics::counter!(REFUSALS, "reason" => reason).increment(1);
}
