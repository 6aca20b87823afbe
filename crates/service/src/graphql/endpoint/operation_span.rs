//! The span of an operation.

use async_graphql::{Request, parser::types::OperationType};
use tandem_runtime::{
    span::{self, Span, SpanKind},
    trace_context::TraceContext,
};

/// The span of an operation, by OpenTelemetry's conventions for GraphQL. It leaves out the document and its variables,
/// because they may hold personal data.
pub(super) fn recorded(
    request: &Request,
    kind: Option<OperationType>,
    trace: &TraceContext,
) -> Span {
    /// Most characters of the operation's name in the span.
    const NAME: usize = 64;
    if !span::is_recording() {
        return Span::none();
    }
    let kind = match kind {
        Some(OperationType::Mutation) => "mutation",
        Some(OperationType::Subscription) => "subscription",
        Some(OperationType::Query) | None => "query",
    };
    let operation = request.operation_name.as_ref();
    let operation: Option<String> = operation.map(|name| name.chars().take(NAME).collect());
    let name = match &operation {
        Some(operation) => format!("{kind} {operation}"),
        None => kind.to_owned(),
    };
    let mut span = Span::within(Some(trace), SpanKind::Internal, name);
    span.set("graphql.operation.type", kind);
    if let Some(operation) = operation {
        span.set("graphql.operation.name", operation);
    }
    span
}
