//! Which trace the router records a request in: it may begin one by itself, and tells nobody. What is counted is linked to it as an exemplar.

use std::cell::Cell;
use std::future::Future;

use opentelemetry::trace::TraceContextExt;
use tandem_runtime::trace_context::TraceContext;
use tokio::task_local;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

task_local! {
    static FOUND: Cell<Option<TraceContext>>;
}

/// Carries a request out; answers its trace, too, if that is recorded and a service was called.
pub(super) async fn found<T>(request: impl Future<Output = T>) -> (T, Option<TraceContext>) {
    let carried = async {
        let outcome = request.await;
        (outcome, FOUND.with(Cell::get))
    };
    FOUND.scope(Cell::new(None), carried).await
}

/// Notes the trace of the present span, within [`found`].
pub(super) fn note() {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() || !span.is_sampled() {
        return;
    }
    let trace = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    if let Ok(trace) = trace.parse() {
        // Elsewhere nobody asks.
        let _ = FOUND.try_with(|found| found.set(Some(trace)));
    }
}
