//! What is counted and logged of requests and answers. Not what messages say: they may quote what a client sent.

use std::time::SystemTime;

use axum::http::HeaderMap;
use tandem_runtime::exemplars;
use tandem_runtime::trace_context::TraceContext;

use super::chosen_operation::Chosen;
use super::endpoint::GraphQl;
use super::error::Refused;
use super::prepared_operation::Kind;
use super::treatment::Treatment;

/// What one without a name is called where it is counted.
const UNNAMED: &str = "Unnamed";
/// How long operations took, by name.
const OPERATIONS: &str = "graphql_operations_seconds";

impl GraphQl {
    /// Counts a refusal, and logs it where that is wanted.
    pub(super) fn tell(&self, refused: &Refused, request_id: Option<&str>) {
        metrics::counter!("front_door_refusals_total", "reason" => refused.reason()).increment(1);
        if self.log_errors
            && let Some(error) = refused.first()
        {
            // Not what the message says: it may quote what the client sent.
            tracing::warn!(
                request_id,
                operation = refused.operation(),
                code = error.code().as_str(),
                reason = refused.reason(),
                "a request was refused"
            );
        }
    }

    /// Counts an answer, and logs its errors, where that is wanted. `trace` is that of the request if it is recorded.
    pub(super) fn tell_errors(
        &self,
        operation: &Chosen,
        request_id: Option<&str>,
        trace: Option<&TraceContext>,
        answer: &[u8],
    ) {
        let has_errors = memchr::memmem::find(answer, b"\"errors\":[").is_some();
        count(self.documents.treatment(), operation, has_errors, trace);
        if !self.log_errors || !has_errors {
            return;
        }
        let codes = codes(answer);
        if !codes.is_empty() {
            tracing::warn!(
                request_id,
                operation = operation.sent_name.as_deref(),
                codes = codes.join(","),
                "an operation was answered with errors"
            );
        }
    }
}

/// Counts an operation that was answered, where the names that it may have are bounded; within this trace if that is recorded.
#[allow(
    clippy::disallowed_methods,
    reason = "when an exemplar was measured decides nothing"
)]
fn count(
    treatment: &Treatment,
    operation: &Chosen,
    has_errors: bool,
    trace: Option<&TraceContext>,
) {
    if treatment.known_operations.is_none() {
        return;
    }
    let kind = match operation.kind {
        Kind::Query => "query",
        Kind::Mutation => "mutation",
        Kind::Subscription => "subscription",
    };
    let name = operation.sent_name.as_deref().unwrap_or(UNNAMED);
    let outcome = if has_errors { "ERROR" } else { "SUCCESS" };
    let seconds = operation.begun.elapsed().as_secs_f64();
    metrics::histogram!(
        OPERATIONS,
        "type" => kind,
        "operation" => name.to_owned(),
        "outcome" => outcome,
    )
    .record(seconds);
    if let Some(trace) = trace {
        let labels = [("type", kind), ("operation", name), ("outcome", outcome)];
        exemplars::keep(OPERATIONS, &labels, seconds, trace, SystemTime::now());
    }
}

/// The codes of an answer's errors, each once, a few at most.
fn codes(answer: &[u8]) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        errors: Vec<Told>,
    }
    #[derive(serde::Deserialize)]
    struct Told {
        #[serde(default)]
        extensions: Extensions,
    }
    #[derive(Default, serde::Deserialize)]
    struct Extensions {
        code: Option<String>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else {
        return Vec::new();
    };
    let mut codes: Vec<String> = answer
        .errors
        .into_iter()
        .map(|error| error.extensions.code.unwrap_or_else(|| "none".to_owned()))
        .map(|code| {
            code.chars()
                .take(64)
                .collect::<String>()
                .escape_debug()
                .to_string()
        })
        .collect();
    codes.sort();
    codes.dedup();
    codes.truncate(8);
    codes
}

pub(super) fn request_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-request-id")?.to_str().ok()
}
