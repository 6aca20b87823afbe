//! What is recorded of commands, by OpenTelemetry's conventions for databases: whoever waits for one within a recorded trace has a span,
//! and one that is shared has its own, within the trace of the first who waits, with links to the others.

use tandem_runtime::{
    span::{Span, SpanKind},
    trace_context::TraceContext,
};

/// Begins to record a command, or a share in one, for the current task.
pub(super) fn command(operation: &'static str, collection: &str) -> Span {
    let span = Span::within_current(SpanKind::Client, operation);
    if span.is_recorded() {
        named(span, operation, collection)
    } else {
        span
    }
}

/// Begins to record a command that is carried out for all of these.
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
