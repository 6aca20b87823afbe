//! Sends spans by OTLP, from a thread of its own.

use std::{
    fmt::Debug,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use opentelemetry::{
    KeyValue, global,
    trace::{SpanKind, TraceId},
};
use opentelemetry_otlp::{
    ExporterBuildError, SpanExporter as Otlp, WithExportConfig, WithHttpConfig, WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig},
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    runtime,
    trace::{
        BatchConfigBuilder, Sampler, SamplingDecision, SdkTracerProvider, ShouldSample, SpanData,
        SpanExporter, span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use tandem_runtime::{span, trace_context::TraceContext};

use super::settings::{Protocol, Sampling, TraceSettings};

/// A collector that is away is told of once in this time.
const SILENCE: Duration = Duration::from_secs(60);

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A setting does not fit.
    #[error("spans cannot be sent to {endpoint}: {source}")]
    Setting {
        /// The collector.
        endpoint: String,
        /// What is wrong.
        source: ExporterBuildError,
    },
    /// A header is none.
    #[error(
        "OTEL_EXPORTER_OTLP_HEADERS: {name} is no header that gRPC can send, or its value is none"
    )]
    Header {
        /// Its name.
        name: String,
    },
    /// Certificates cannot be read.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {path} cannot be read: {source}")]
    Certificates {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Sends what is recorded in this process until it is told to end.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Begins to record and to send. Within a Tokio runtime, once in a process.
    ///
    /// # Errors
    /// When a setting does not fit. A collector that is away is no error.
    pub fn start(service: &'static str, settings: &TraceSettings) -> Result<Self, ExportError> {
        let exporter = Reporting {
            inner: otlp(settings)?,
            endpoint: settings.endpoint.clone(),
            told: Mutex::new(None),
        };
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(settings.batches.delay)
            .with_max_queue_size(settings.batches.queue)
            .with_max_export_batch_size(settings.batches.size)
            .with_max_export_timeout(settings.batches.time_limit)
            .build();
        let processor = BatchSpanProcessor::builder(exporter, runtime::TokioCurrentThread)
            .with_batch_config(batches)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.sampling))
            .with_resource(resource(service, settings))
            .with_span_processor(processor)
            .build();
        global::set_tracer_provider(provider.clone());
        span::record();
        Ok(Self(provider))
    }

    /// Sends what waits, for this long at most, and ends.
    pub async fn end(self, limit: Duration) {
        let ending = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(limit));
        if !matches!(tokio::time::timeout(limit, ending).await, Ok(Ok(Ok(())))) {
            tracing::debug!("the last spans could not be sent in time");
        }
    }
}

impl Sampling {
    /// Whether a trace is recorded that this caller has asked within, or that begins here.
    #[must_use]
    pub fn records(&self, caller: Option<&TraceContext>, trace: &TraceContext) -> bool {
        if let Some(caller) = caller.filter(|_| self.follows_parent) {
            return caller.is_sampled();
        }
        let id = TraceId::from_bytes(trace.trace_bytes());
        let sampler = Sampler::TraceIdRatioBased(self.ratio);
        let decided = sampler.should_sample(None, id, "", &SpanKind::Server, &[], &[]);
        decided.decision == SamplingDecision::RecordAndSample
    }
}

fn sampler(sampling: Sampling) -> Sampler {
    let root = Sampler::TraceIdRatioBased(sampling.ratio);
    if sampling.follows_parent {
        Sampler::ParentBased(Box::new(root))
    } else {
        root
    }
}

fn resource(service: &'static str, settings: &TraceSettings) -> Resource {
    let name = settings.service_name.clone();
    let attributes = settings.resource.iter().cloned();
    Resource::builder_empty()
        .with_attributes(attributes.map(|(key, value)| KeyValue::new(key, value)))
        .with_service_name(name.unwrap_or_else(|| format!("tandem-{service}")))
        .build()
}

fn otlp(settings: &TraceSettings) -> Result<Otlp, ExportError> {
    let built = match settings.protocol {
        Protocol::HttpProtobuf => Otlp::builder()
            .with_http()
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.batches.time_limit)
            .with_headers(settings.headers.iter().cloned().collect())
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .build(),
        Protocol::Grpc => {
            let mut exporter = Otlp::builder()
                .with_tonic()
                .with_endpoint(&settings.endpoint)
                .with_timeout(settings.batches.time_limit)
                .with_metadata(metadata(settings)?);
            if let Some(certificates) = settings.collector_certificates() {
                exporter = exporter.with_tls_config(tls(&certificates)?);
            }
            exporter.build()
        }
    };
    built.map_err(|source| ExportError::Setting {
        endpoint: settings.endpoint.clone(),
        source,
    })
}

fn metadata(settings: &TraceSettings) -> Result<MetadataMap, ExportError> {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &settings.headers {
        let wrong = || ExportError::Header { name: name.clone() };
        let key = http::HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let mut value = http::HeaderValue::try_from(value.as_str()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(MetadataMap::from_headers(headers))
}

fn tls(file: &Path) -> Result<ClientTlsConfig, ExportError> {
    let certificates = std::fs::read(file).map_err(|source| ExportError::Certificates {
        path: file.display().to_string(),
        source,
    })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates)))
}

/// Says in our own words, and seldom, that spans are lost.
#[derive(Debug)]
struct Reporting<E> {
    inner: E,
    endpoint: String,
    told: Mutex<Option<Instant>>,
}

impl<E: SpanExporter> SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.inner.export(batch).await;
        if let Err(error) = &outcome {
            self.report(spans, error);
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E> Reporting<E> {
    fn report(&self, spans: usize, error: &dyn std::error::Error) {
        metrics::counter!("trace_spans_lost_total").increment(spans as u64);
        let mut told = self
            .told
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < SILENCE) {
            return;
        }
        *told = Some(Instant::now());
        tracing::warn!(
            endpoint = self.endpoint,
            spans,
            %error,
            "spans could not be sent to the collector and are lost; requests do not wait for it"
        );
    }
}
