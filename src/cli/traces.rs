//! Runs a service whose spans are exported to a collector, where the standard variables of OpenTelemetry name one.

use std::{future::Future, time::Duration};

use tandem_trace_export::{Exporter, TraceSettings};

/// How long the export of the last spans may take after the service has ended.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs a service and exports its spans.
///
/// # Errors
/// When a variable is not valid, and when the service fails.
pub(super) async fn recorded<T>(
    service: &'static str,
    running: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let Some(settings) = TraceSettings::from_environment()? else {
        return running.await;
    };
    let exporter = Exporter::start(service, &settings)?;
    tracing::info!(
        endpoint = settings.endpoint,
        share = settings.sampling.ratio,
        "spans are sent to a collector"
    );
    let outcome = running.await;
    exporter.end(FAREWELL).await;
    outcome
}
