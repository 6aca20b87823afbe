//! Finds the trace in which the router records a request. The router may begin a trace itself and does not report it.
//! Metrics are linked to the trace as an exemplar.

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

/// Executes a request. Also returns its trace, if that is recorded and a service was called.
pub(super) async fn found<T>(request: impl Future<Output = T>) -> (T, Option<TraceContext>) {
    let carried = async {
        let outcome = request.await;
        (outcome, FOUND.with(Cell::get))
    };
    FOUND.scope(Cell::new(None), carried).await
}

/// Records the trace of the current span for the surrounding [`found`].
pub(super) fn note() {
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    if !span.is_valid() || !span.is_sampled() {
        return;
    }
    let trace = format!("00-{}-{}-01", span.trace_id(), span.span_id());
    if let Ok(trace) = trace.parse() {
        // Outside of `found` nobody needs the trace.
        let _ = FOUND.try_with(|found| found.set(Some(trace)));
    }
}
