//! Exports spans over OTLP, on a separate thread.

use std::{path::Path, sync::Arc, time::Duration};

use opentelemetry::{
    global,
    trace::{SpanKind, TraceId},
};
use opentelemetry_otlp::{
    Compression, ExporterBuildError, SpanExporter as Otlp, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
    tonic_types::{
        metadata::MetadataMap,
        transport::{Certificate, ClientTlsConfig, Identity},
    },
};
use opentelemetry_sdk::{
    runtime,
    trace::{
        BatchConfigBuilder, Sampler, SamplingDecision, SdkTracerProvider, ShouldSample,
        span_processor_with_async_runtime::BatchSpanProcessor,
    },
};
use tandem_runtime::{span, trace_context::TraceContext};

use super::{
    losses::Losses,
    queue::{Bounded, Places, Sending},
    resource::resource,
    settings::{Protocol, Sampling, TraceSettings},
};

/// Capacity in the library's own queue for items that are not spans: requests to flush or to shut down.
const REQUESTS: usize = 16;

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A setting is invalid.
    #[error("spans cannot be sent to {endpoint}: {source}")]
    Setting {
        /// The collector.
        endpoint: String,
        /// The cause.
        source: ExporterBuildError,
    },
    /// A header is invalid.
    #[error(
        "OTEL_EXPORTER_OTLP_HEADERS: {name} is no header that gRPC can send, or its value is none"
    )]
    Header {
        /// The name of the header.
        name: String,
    },
    /// A file cannot be read.
    #[error("{name}: {path} cannot be read: {source}")]
    File {
        /// The variable that names the file.
        name: &'static str,
        /// The file.
        path: String,
        /// The reason.
        source: std::io::Error,
    },
}

/// Exports the spans of this process until it is shut down.
#[derive(Debug)]
pub struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Starts to record and export spans. It must run in a Tokio runtime, and only once in a process.
    ///
    /// # Errors
    /// When a setting is invalid. An unavailable collector is not an error.
    pub fn start(service: &'static str, settings: &TraceSettings) -> Result<Self, ExportError> {
        let losses = Arc::new(Losses::on_the_way_to(&settings.endpoint));
        let places = Places::new(settings.batches.queue);
        let exporter = Sending::new(otlp(settings)?, places.clone(), Arc::clone(&losses));
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(settings.batches.delay)
            // The queue before this one fills up first. It counts what it drops.
            .with_max_queue_size(settings.batches.queue.saturating_add(REQUESTS))
            .with_max_export_batch_size(settings.batches.size)
            .with_max_export_timeout(settings.batches.time_limit)
            .build();
        let processor = BatchSpanProcessor::builder(exporter, runtime::TokioCurrentThread)
            .with_batch_config(batches)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(sampler(settings.sampling))
            .with_resource(resource(service, settings))
            .with_span_processor(Bounded::new(processor, places, losses))
            .build();
        global::set_tracer_provider(provider.clone());
        span::record();
        Ok(Self(provider))
    }

    /// Exports the waiting spans, for at most `limit`, and shuts down.
    #[expect(clippy::disallowed_methods, reason = "it waits for a real collector")]
    pub async fn end(self, limit: Duration) {
        let ending = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(limit));
        if !matches!(tokio::time::timeout(limit, ending).await, Ok(Ok(Ok(())))) {
            tracing::debug!("the last spans could not be sent in time");
        }
    }
}

impl Sampling {
    /// Whether a trace is recorded. `caller` is the caller's context, if the trace did not begin here.
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

fn otlp(settings: &TraceSettings) -> Result<Otlp, ExportError> {
    let built = match settings.protocol {
        Protocol::HttpProtobuf => {
            let mut exporter = Otlp::builder()
                .with_http()
                .with_endpoint(&settings.endpoint)
                .with_timeout(settings.batches.time_limit)
                .with_headers(settings.headers.iter().cloned().collect())
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary);
            if settings.is_compressed {
                exporter = exporter.with_compression(Compression::Gzip);
            }
            exporter.build()
        }
        Protocol::Grpc => {
            let mut exporter = Otlp::builder()
                .with_tonic()
                .with_endpoint(&settings.endpoint)
                .with_timeout(settings.batches.time_limit)
                .with_metadata(metadata(settings)?);
            if settings.is_compressed {
                exporter = exporter.with_compression(Compression::Gzip);
            }
            if let Some(certificates) = settings.collector_certificates() {
                exporter = exporter.with_tls_config(tls(settings, &certificates)?);
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

/// The authorities for verifying a collector, and the client certificate for it.
fn tls(settings: &TraceSettings, certificates: &Path) -> Result<ClientTlsConfig, ExportError> {
    let trusted = read("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates)?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted));
    let Some(client) = &settings.client else {
        return Ok(tls);
    };
    let certificate = read("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &client.certificate)?;
    let key = read("OTEL_EXPORTER_OTLP_CLIENT_KEY", &client.key)?;
    Ok(tls.identity(Identity::from_pem(certificate, key)))
}

fn read(name: &'static str, file: &Path) -> Result<Vec<u8>, ExportError> {
    std::fs::read(file).map_err(|source| ExportError::File {
        name,
        path: file.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> TraceSettings {
        let read = TraceSettings::from_variables(|name| {
            let mut variables = variables.iter();
            let found = variables.find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        read.unwrap().unwrap()
    }

    #[tokio::test]
    async fn messages_can_be_compressed_with_both_protocols() {
        for protocol in ["grpc", "http/protobuf"] {
            let settings = settings(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ]);
            assert!(settings.is_compressed);
            let built = otlp(&settings);
            assert!(built.is_ok(), "{protocol}: {built:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_its_variable() {
        let folder = std::env::temp_dir().join(uuid::Uuid::new_v4().to_string());
        std::fs::create_dir(&folder).unwrap();
        let there = folder.join("there.pem");
        std::fs::write(&there, "").unwrap();
        let (there, missing) = (there.display().to_string(), "/missing.pem");
        for (name, authorities, certificate, key) in [
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", missing, &*there, &*there),
            (
                "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                &*there,
                missing,
                &*there,
            ),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &*there, &*there, missing),
        ] {
            let settings = settings(&[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://there:4317"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_EXPORTER_OTLP_CERTIFICATE", authorities),
                ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate),
                ("OTEL_EXPORTER_OTLP_CLIENT_KEY", key),
            ]);
            let certificates = settings.collector_certificates().unwrap();
            let error = tls(&settings, &certificates).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: {missing}")), "{error}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
