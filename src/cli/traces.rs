//! A service with its spans sent to a collector, where the standard variables of OpenTelemetry name one.

use std::{future::Future, time::Duration};

use tandem_trace_export::{Exporter, TraceSettings};

/// How long the last spans may take when the service has ended.
const FAREWELL: Duration = Duration::from_millis(500);

/// Runs a service.
///
/// # Errors
/// When a variable does not fit, and what the service ends with.
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
