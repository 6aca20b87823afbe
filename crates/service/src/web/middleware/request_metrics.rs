//! Counts requests by method, route, status and outcome.
#![expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]

use std::time::SystemTime;

use axum::extract::MatchedPath;
use axum::http::StatusCode;

use super::asked_request::Asked;
use tandem_runtime::{exemplars, trace_context::TraceContext};

/// The histogram of all requests.
const HTTP_REQUESTS: &str = "http_server_requests_seconds";

impl Asked {
    /// `trace` is the trace of the request, if it is recorded.
    pub(super) fn count(&self, status: StatusCode, trace: Option<&TraceContext>) {
        let outcome = match status.as_u16() {
            100..=199 => "INFORMATIONAL",
            200..=299 => "SUCCESS",
            300..=399 => "REDIRECTION",
            400..=499 => "CLIENT_ERROR",
            _ => "SERVER_ERROR",
        };
        let route = self.route.as_ref().map_or("UNKNOWN", MatchedPath::as_str);
        let (method, seconds) = (
            known_method(self.method.as_str()),
            self.begun.elapsed().as_secs_f64(),
        );
        metrics::histogram!(
            HTTP_REQUESTS,
            "method" => method,
            "uri" => route.to_owned(),
            "status" => status.as_str().to_owned(),
            "outcome" => outcome,
        )
        .record(seconds);
        if let Some(trace) = trace {
            let labels = [
                ("method", method),
                ("uri", route),
                ("status", status.as_str()),
                ("outcome", outcome),
            ];
            exemplars::keep(HTTP_REQUESTS, &labels, seconds, trace, SystemTime::now());
        }
    }
}

/// A method may be any token, so only the usual ones become a label.
pub(super) fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}
