//! Counts refused requests and connections, by reason.

/// The counter.
const REFUSALS: &str = "front_door_refusals_total";
/// Counts subscriptions that ended because their client read too slowly.
pub(crate) const LAGGED: &str = "front_door_lagged_subscriptions_total";

/// All reasons for refusals. A new reason must be added here.
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

/// Registers the counters before anything is refused. A series that only begins with the first refusal would show no
/// increase.
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
