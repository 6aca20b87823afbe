//! Spans of commands, by OpenTelemetry's conventions for databases. Each caller within a recorded trace has a span. A
//! shared command has its own span, in the trace of the first caller, with links to the others.

use tandem_runtime::{
    span::{Span, SpanKind},
    trace_context::TraceContext,
};

/// Begins a span for a command, or for a share in one, in the current task.
pub(super) fn command(operation: &'static str, collection: &str) -> Span {
    let span = Span::within_current(SpanKind::Client, operation);
    if span.is_recorded() {
        named(span, operation, collection)
    } else {
        span
    }
}

/// Begins a span for a command that serves all of these callers.
pub(super) fn shared(
    operation: &'static str,
    collection: &str,
    waiting: impl IntoIterator<Item = Option<TraceContext>>,
) -> Span {
    let waiting = waiting.into_iter().flatten();
    let span = Span::for_all(waiting, SpanKind::Internal, operation);
    if !span.is_recorded() {
        return span;
    }
    let mut span = named(span, operation, collection);
    span.rename(format!("shared {operation} {collection}"));
    span
}

fn named(mut span: Span, operation: &'static str, collection: &str) -> Span {
    span.rename(format!("{operation} {collection}"));
    span.with("db.system.name", "mongodb")
        .with("db.operation.name", operation)
        .with("db.collection.name", collection.to_owned())
}
