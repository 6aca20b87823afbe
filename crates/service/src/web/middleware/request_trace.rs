//! The trace of a request, continued from the caller or started here, and the span that is recorded for it.

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;

use super::asked_request::Asked;
use super::request_id::REQUEST_ID;
use super::request_metrics::known_method;
use tandem_runtime::{
    span::{self, Span},
    trace_context::{TRACEPARENT, TraceContext},
};

/// The caller's trace, if there is one.
fn trace_of_caller(request: &Request) -> Option<TraceContext> {
    let value = request.headers().get(TRACEPARENT)?;
    value.to_str().ok()?.parse().ok()
}

/// The span of the request, by OpenTelemetry's conventions for HTTP servers.
pub(super) fn recorded(request: &Request, asked: &Asked, scheme: &'static str) -> Span {
    if !span::is_recording() {
        return Span::none();
    }
    let method = known_method(asked.method.as_str());
    let route = asked.route.as_ref().map(MatchedPath::as_str);
    let name = match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let mut span = Span::of_request(name, trace_of_caller(request).as_ref());
    if span.is_recorded() {
        span.set("http.request.method", method);
        span.set("url.path", asked.path.clone());
        span.set("url.scheme", scheme);
        if let Some(route) = route {
            span.set("http.route", route.to_owned());
        }
        let id = request.headers().get(&REQUEST_ID);
        if let Some(id) = id.and_then(|id| id.to_str().ok()) {
            span.set("tandem.request_id", id.to_owned());
        }
    }
    span
}

pub(super) fn answered(span: &mut Span, status: StatusCode) {
    if !span.is_recorded() {
        return;
    }
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set("error.type", status.as_str().to_owned());
        span.fail("");
    }
}

/// Continues the caller's trace, or starts one, and puts it into the request's extensions. The span adds the trace to
/// every log line within the request. The span has the level ERROR: a filter that disables a span removes its fields
/// from all lines, also from errors.
pub(super) fn continue_trace(
    request: &mut Request,
    recorded: Option<TraceContext>,
) -> (TraceContext, tracing::Span) {
    let context = recorded.unwrap_or_else(|| {
        trace_of_caller(request).map_or_else(TraceContext::generate, |caller| caller.child())
    });
    request.extensions_mut().insert(context);
    let span = tracing::error_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        trace_id = %context.trace_id(),
        request_id = tracing::field::Empty,
    );
    if let Some(id) = request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
    {
        span.record("request_id", id);
    }
    (context, span)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn a_request_has_its_span_also_where_only_errors_are_logged() {
        let quiet = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::ERROR)
            .finish();
        tracing::subscriber::with_default(quiet, || {
            let (_, span) = continue_trace(&mut Request::new(Body::empty()), None);
            assert!(!span.is_disabled());
        });
    }
}
