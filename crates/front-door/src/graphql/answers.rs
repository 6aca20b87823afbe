//! Answers on their way to a client, over any transport: they are limited in size and counted.

use axum::body::Body;
use axum::http::{Response, header};
use bytes::Bytes;
use tandem_runtime::trace_context::TraceContext;

use super::bounded_answer::{Unread, whole, with_null};
use super::chosen_operation::Chosen;
use super::endpoint::GraphQl;
use super::error::Refused;
use super::negotiation::Format;
use super::telemetry::Named;

impl GraphQl {
    /// Reads a whole answer, or replaces it by a refusal if it is too large, and counts it. `None` if it broke off.
    pub(super) async fn read_answer(
        &self,
        operation: &Chosen,
        answer: Response<Body>,
        named: Named<'_>,
    ) -> Option<Bytes> {
        let (parts, body) = answer.into_parts();
        let read = whole(body, self.max_answer).await;
        let trace = parts.extensions.get();
        match read {
            Ok(bytes) => {
                self.log_errors_of(operation, named, trace, &bytes);
                Some(bytes)
            }
            Err(Unread::TooLarge(refused)) => {
                Some(self.refuse_too_large(operation, refused, named, trace))
            }
            Err(Unread::BrokenOff) => None,
        }
    }

    /// Replaces an answer that is too large by a refusal, and counts it.
    pub(super) fn refuse_too_large(
        &self,
        operation: &Chosen,
        refused: Refused,
        named: Named<'_>,
        trace: Option<&TraceContext>,
    ) -> Bytes {
        let refused = refused.of_operation(operation.sent_name.clone());
        self.log_too_large(operation, named, trace, &refused);
        with_null(&refused)
    }
}

pub(super) fn json_of(format: Format) -> &'static str {
    match format {
        Format::Json => "application/json",
        _ => "application/graphql-response+json",
    }
}

pub(super) fn is_event_stream(answer: &Response<Body>) -> bool {
    answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
