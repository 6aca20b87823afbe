//! Counts and logs requests and answers. It does not log messages, which may quote what a client sent.

use std::time::SystemTime;

use axum::http::HeaderMap;
use tandem_runtime::exemplars;
use tandem_runtime::trace_context::{TRACEPARENT, TraceContext};

use super::chosen_operation::Chosen;
use super::endpoint::GraphQl;
use super::error::Refused;
use super::prepared_operation::Kind;
use super::treatment::Treatment;
use crate::refusals;

/// The label of operations without a name.
const UNNAMED: &str = "Unnamed";
/// The histogram of how long operations took, by name.
const OPERATIONS: &str = "graphql_operations_seconds";

/// How the log identifies a request: by its id and its trace.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Named<'a> {
    pub(super) request_id: Option<&'a str>,
    pub(super) trace: Option<TraceContext>,
}

impl<'a> Named<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            request_id: text("x-request-id"),
            trace: text(TRACEPARENT).and_then(|value| value.parse().ok()),
        }
    }

    /// The same, with the trace in which the request was executed if it provided none.
    fn within(self, trace: Option<&TraceContext>) -> Self {
        Self {
            trace: self.trace.or(trace.copied()),
            ..self
        }
    }

    fn trace_id(&self) -> Option<String> {
        self.trace.map(|trace| trace.trace_id())
    }
}

impl GraphQl {
    /// Counts a refusal, and logs it if logging is on.
    pub(super) fn log_refusal(&self, refused: &Refused, named: Named<'_>) {
        refusals::count(refused.reason());
        if self.log_errors
            && let Some(error) = refused.first()
        {
            // The message is not logged: it may quote what the client sent.
            tracing::warn!(
                request_id = named.request_id,
                trace_id = named.trace_id(),
                operation = refused.operation(),
                code = error.code().as_str(),
                reason = refused.reason(),
                "a request was refused"
            );
        }
    }

    /// Counts an answer that is too large, once as an answer with errors, which the client gets instead, and once as a
    /// refusal. Logs it if logging is on. `trace` is the trace of its execution, if it is known.
    pub(super) fn log_too_large(
        &self,
        operation: &Chosen,
        named: Named<'_>,
        trace: Option<&TraceContext>,
        refused: &Refused,
    ) {
        count(self.documents.treatment(), operation, true, trace);
        self.log_refusal(refused, named.within(trace));
    }

    /// Counts an answer, and logs its errors if logging is on. `trace` is the trace of its execution, if it is known.
    pub(super) fn log_errors_of(
        &self,
        operation: &Chosen,
        named: Named<'_>,
        trace: Option<&TraceContext>,
        answer: &[u8],
    ) {
        let has_errors = memchr::memmem::find(answer, b"\"errors\":[").is_some();
        count(self.documents.treatment(), operation, has_errors, trace);
        if !self.log_errors || !has_errors {
            return;
        }
        let codes = codes(answer);
        let named = named.within(trace);
        if !codes.is_empty() {
            tracing::warn!(
                request_id = named.request_id,
                trace_id = named.trace_id(),
                operation = operation.sent_name.as_deref(),
                codes = codes.join(","),
                "an operation was answered with errors"
            );
        }
    }
}

/// Counts an answered operation, if the set of possible names is bounded. Keeps an exemplar if its trace is known.
#[expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]
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

/// The distinct codes of an answer's errors, up to a small number.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_log_names_a_request_by_its_id_and_by_the_trace_that_it_brings() {
        let mut headers = HeaderMap::new();
        assert!(Named::of(&headers).trace_id().is_none());
        headers.insert("x-request-id", "r-1".parse().unwrap());
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert(TRACEPARENT, trace.parse().unwrap());
        let named = Named::of(&headers);
        assert_eq!(named.request_id, Some("r-1"));
        let id = named.trace_id();
        assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        headers.insert(TRACEPARENT, "nonsense".parse().unwrap());
        assert!(Named::of(&headers).trace_id().is_none());
    }

    #[test]
    fn the_log_names_a_request_that_brings_no_trace_by_the_one_that_began_here() {
        let (own, begun) = (TraceContext::generate(), TraceContext::generate());
        let mut headers = HeaderMap::new();
        let named = Named::of(&headers).within(Some(&begun));
        assert_eq!(named.trace_id(), Some(begun.trace_id()));
        headers.insert(TRACEPARENT, own.to_string().parse().unwrap());
        let named = Named::of(&headers).within(Some(&begun));
        assert_eq!(named.trace_id(), Some(own.trace_id()));
    }
}
