//! Logs and metrics of a process: where they go, what every line contains, and how latencies are counted.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{
    Format, FormatEvent, FormatFields, Json, JsonFields, Writer,
};
use tracing_subscriber::registry::LookupSpan;

pub use tandem_runtime::exemplars::LATENCY_BUCKETS_SECONDS;
use tandem_runtime::shutdown::Shutdown;
pub use tandem_runtime::trace_context::{InvalidTraceparent, TRACEPARENT, TraceContext};

/// How often the recorder moves recorded values into its histograms. This bounds memory when nobody scrapes.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What is logged, and how.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Logging")]
pub struct LogSettings {
    /// What to log: a level (error, warn, info, debug, trace) or directives such as `info,tandem_event_path=debug`.
    #[arg(
        long,
        env = "RUST_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    pub log: String,

    /// How to write log lines (to standard error).
    #[arg(
        long,
        env = "TANDEM_LOG_FORMAT",
        value_enum,
        default_value_t,
        global = true
    )]
    pub log_format: LogFormat,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            log: "info".into(),
            log_format: LogFormat::default(),
        }
    }
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line of text, coloured on a terminal.
    #[default]
    Text,
    /// For log collectors: one JSON object a line.
    Json,
}

/// Why logging or metrics could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter of `--log` is invalid.
    #[error(
        "--log (RUST_LOG) is no filter: {reason}; write a level such as `info` or directives such as `info,tandem_event_path=debug`"
    )]
    Filter {
        /// What is wrong with the filter.
        reason: String,
    },
    /// Another subscriber is installed in this process.
    #[error("logging was set up before: {0}")]
    Logging(#[from] tracing_subscriber::util::TryInitError),
    /// Another recorder is installed in this process.
    #[error("metrics could not be set up: {0}")]
    Metrics(#[from] BuildError),
}

/// Starts logging to standard error. Every line names the service.
///
/// # Errors
///
/// If the filter is invalid, or logging was started before.
pub fn init_logging(service: &'static str, settings: &LogSettings) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;

    if let Some(reason) = mistyped(&settings.log) {
        return Err(TelemetryError::Filter { reason });
    }
    // A process has many Kafka clients, and each of them would log the same fault again and again. `kafka::link`, and
    // the code that waits, log what matters of it. A directive such as `librdkafka=warn` enables these lines. The
    // tracing library logs each message that a collector does not accept; instead, we log once a minute what was lost.
    let directives = format!(
        "rdkafka=off,librdkafka=off,opentelemetry_sdk=off,{}",
        settings.log
    );
    let filter = EnvFilter::try_new(directives).map_err(|error| TelemetryError::Filter {
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost. Reporting that, also to standard error, would end in a panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => builder
            .event_format(NamedText {
                service,
                inner: Format::default(),
            })
            .finish()
            .try_init()?,
        LogFormat::Json => builder
            .fmt_fields(JsonFields::new())
            .event_format(NamedJson {
                service,
                inner: json_format(),
            })
            .finish()
            .try_init()?,
    }
    Ok(())
}

/// Recognizes a misspelled level. `EnvFilter` takes a single word as the name of a target, so a misspelled level would
/// silence everything else.
fn mistyped(filter: &str) -> Option<String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let directives = filter.split(',').map(str::trim);
    directives
        .filter(|directive| !directive.is_empty() && !directive.contains(['[', ']', '{', '}']))
        .find_map(|directive| match directive.split_once('=') {
            None => {
                let is_level = LEVELS
                    .iter()
                    .any(|level| directive.eq_ignore_ascii_case(level))
                    || directive.parse::<u8>().is_ok_and(|level| level <= 5);
                (!is_level).then(|| format!("`{directive}` is no level"))
            }
            Some((target, "")) => Some(format!("`{target}=` has no level")),
            Some(_) => None,
        })
}

fn json_format() -> Format<Json> {
    Format::default().json().flatten_event(true)
}

/// Installs the process's metrics recorder and runs its upkeep until shutdown.
///
/// # Errors
///
/// If a recorder was installed before.
pub fn install_metrics(
    service: &'static str,
    shutdown: &Shutdown,
) -> Result<MetricsHandle, TelemetryError> {
    let handle = MetricsHandle(recorder_builder(service)?.install_recorder()?);
    let upkeep = handle.clone();
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        while stop.sleep(UPKEEP_INTERVAL).await {
            upkeep.0.run_upkeep();
        }
    });
    Ok(handle)
}

fn recorder_builder(service: &'static str) -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .add_global_label("application", service)
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), LATENCY_BUCKETS_SECONDS)
}

/// Renders the recorded metrics.
#[derive(Clone)]
pub struct MetricsHandle(PrometheusHandle);

impl fmt::Debug for MetricsHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MetricsHandle")
    }
}

impl MetricsHandle {
    /// A handle to a recorder that is not installed in the process, for tests (see `metrics::with_local_recorder`).
    ///
    /// # Errors
    ///
    /// Never with the buckets of this crate. The error is the builder's.
    pub fn detached(
        service: &'static str,
    ) -> Result<(metrics_exporter_prometheus::PrometheusRecorder, Self), TelemetryError> {
        let recorder = recorder_builder(service)?.build_recorder();
        let handle = Self(recorder.handle());
        Ok((recorder, handle))
    }

    /// All metrics recorded so far, in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Text lines that begin with the service's name.
struct NamedText {
    service: &'static str,
    inner: Format,
}

impl<S, N> FormatEvent<S, N> for NamedText
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "{:<8} ", self.service)?;
        self.inner.format_event(context, writer, event)
    }
}

/// JSON lines whose first member is the service's name.
struct NamedJson {
    service: &'static str,
    inner: Format<Json>,
}

impl<S, N> FormatEvent<S, N> for NamedJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner
            .format_event(context, Writer::new(&mut line), event)?;
        // The formatter has no static members, so ours is inserted before its first member.
        let rest = line.strip_prefix('{').unwrap_or(&line);
        write!(writer, "{{\"service\":\"{}\",{rest}", self.service)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_names_the_service() {
        let text = Lines::default();
        let json = Lines::default();
        let (text_writer, json_writer) = (text.clone(), json.clone());
        let as_text = tracing_subscriber::fmt()
            .with_writer(move || text_writer.clone())
            .with_ansi(false)
            .event_format(NamedText {
                service: "orders",
                inner: Format::default(),
            })
            .finish();
        tracing::subscriber::with_default(as_text, || tracing::info!(count = 3, "hello"));
        let as_json = tracing_subscriber::fmt()
            .with_writer(move || json_writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(NamedJson {
                service: "orders",
                inner: json_format(),
            })
            .finish();
        tracing::subscriber::with_default(as_json, || tracing::info!(count = 3, "hello"));

        let text = String::from_utf8(text.0.lock().unwrap().clone()).unwrap();
        assert!(text.starts_with("orders "), "{text}");
        assert!(text.contains("hello count=3"), "{text}");
        let json: serde_json::Value = serde_json::from_slice(&json.0.lock().unwrap()).unwrap();
        assert_eq!(json["service"], "orders");
        assert_eq!(json["message"], "hello");
        assert_eq!(json["count"], 3);
    }

    #[test]
    fn latencies_are_counted_in_buckets_and_carry_the_service() {
        let (recorder, handle) = MetricsHandle::detached("accounts").unwrap();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("commit_seconds").record(0.004);
        });
        let rendered = handle.render();
        assert!(rendered.contains("commit_seconds_bucket"), "{rendered}");
        assert!(rendered.contains("le=\"0.005\"} 1"), "{rendered}");
        assert!(rendered.contains("application=\"accounts\""), "{rendered}");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        for wrong in [
            "info,=,=nonsense=",
            "loud",
            "info,tandem_orders=",
            "tandem_orders",
        ] {
            let settings = LogSettings {
                log: wrong.into(),
                ..LogSettings::default()
            };
            let error = init_logging("accounts", &settings).unwrap_err();
            assert!(error.to_string().contains("--log"), "{wrong}: {error}");
        }
        for right in [
            "info",
            "WARN",
            "3",
            "",
            "info,tandem_orders=debug",
            "warn, [request]=trace",
            "info,[request{path}]=debug",
        ] {
            assert_eq!(mistyped(right), None, "{right}");
        }
    }
}
