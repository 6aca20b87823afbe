//! Where spans are sent and which are recorded, from the variables that OpenTelemetry defines for every program.
//!
//! See <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.

mod variables;

use std::{path::PathBuf, time::Duration};

use variables::{Variables, milliseconds, pairs, wrong};

/// The path for spans below a base URL (OTLP, "Endpoint URLs for OTLP/HTTP").
const TRACES_PATH: &str = "v1/traces";

/// What is expected instead of an endpoint with user and password. The library sends neither, and the endpoint is
/// logged.
const NO_PASSWORD: &str = "a URL without user and password; they are a header: OTEL_EXPORTER_OTLP_HEADERS='authorization=Basic BASE64'";

/// Where Debian and most other systems keep the certificates that they trust.
const SYSTEM_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How spans are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Protobuf over gRPC.
    Grpc,
    /// Protobuf over HTTP.
    HttpProtobuf,
}

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The share of the traces that begin here, from 0 to 1.
    pub ratio: f64,
    /// Whether a trace that a caller began is recorded if, and only if, the caller records it.
    pub follows_parent: bool,
}

/// How spans are batched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batches {
    /// How long a span waits at most for others.
    pub delay: Duration,
    /// The most spans that wait. Further ones are dropped.
    pub queue: usize,
    /// The most spans in one message.
    pub size: usize,
    /// How long one message may take.
    pub time_limit: Duration,
}

/// The client certificate (PEM files) for a collector that requires one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where spans are sent, and which are recorded.
#[derive(Clone, PartialEq)]
pub struct TraceSettings {
    /// The URL of the collector. It is used unchanged.
    pub endpoint: String,
    /// The protocol.
    pub protocol: Protocol,
    /// Headers of each message, such as credentials.
    pub headers: Vec<(String, String)>,
    /// Certificates (PEM) for verifying a collector with TLS. Without it those of the system are used.
    pub certificates: Option<PathBuf>,
    /// The client certificate for a collector with TLS, if there is one.
    pub client: Option<ClientCertificate>,
    /// Whether messages are compressed (gzip).
    pub is_compressed: bool,
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// How spans are batched.
    pub batches: Batches,
    /// Attributes that describe this process in every span, in addition to its name.
    pub resource: Vec<(String, String)>,
    /// The name of this process, if it is not the default one.
    pub service_name: Option<String>,
}

impl std::fmt::Debug for TraceSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers contain credentials.
        formatter
            .debug_struct("TraceSettings")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("sampling", &self.sampling)
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

/// A variable with an invalid value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is {value:?}; expected {expected}")]
pub struct SettingsError {
    /// The variable.
    pub name: String,
    /// Its value.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

impl TraceSettings {
    /// Reads the variables of this process. `None` without an endpoint, or if tracing is switched off.
    ///
    /// # Errors
    /// Names the invalid variable and the values that it may have.
    pub fn from_environment() -> Result<Option<Self>, SettingsError> {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// Reads the settings from variables.
    ///
    /// # Errors
    /// Names the invalid variable and the values that it may have.
    pub fn from_variables(
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, SettingsError> {
        let variables = Variables(&variable);
        if variables.switch("OTEL_SDK_DISABLED")? {
            return Ok(None);
        }
        let exporter = variables.get("OTEL_TRACES_EXPORTER");
        match exporter.as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(wrong("OTEL_TRACES_EXPORTER", other, "otlp or none"));
            }
        }
        let own = variables.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let shared = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT");
        let (name, given) = match (own, shared) {
            (Some(own), _) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", own),
            (None, Some(shared)) => ("OTEL_EXPORTER_OTLP_ENDPOINT", shared),
            (None, None) => return Ok(None),
        };
        let authority = match given.split_once("://") {
            Some(("http" | "https", rest)) => rest.split(['/', '?', '#']).next(),
            _ => None,
        };
        let authority = authority.unwrap_or_default();
        // The part before an `@` may contain a password.
        if authority.contains('@') {
            return Err(wrong(name, "…", NO_PASSWORD));
        }
        if authority.is_empty() {
            let told = if given.contains('@') {
                "…"
            } else {
                given.as_str()
            };
            return Err(wrong(
                name,
                told,
                "the URL of a collector, such as http://127.0.0.1:4318",
            ));
        }
        let (protocol_name, protocol) = variables.of_traces("PROTOCOL");
        let protocol = match protocol.as_deref() {
            None | Some("http/protobuf") => Protocol::HttpProtobuf,
            Some("grpc") => Protocol::Grpc,
            Some(other) => {
                return Err(wrong(&protocol_name, other, "grpc or http/protobuf"));
            }
        };
        // A URL for spans is used unchanged. A URL for all signals is the base of the one for spans.
        let endpoint = match (protocol, name) {
            (Protocol::HttpProtobuf, "OTEL_EXPORTER_OTLP_ENDPOINT") => {
                format!("{}/{TRACES_PATH}", given.trim_end_matches('/'))
            }
            _ => given,
        };
        let (headers_name, headers) = variables.of_traces("HEADERS");
        let headers = pairs(&headers_name, headers.as_deref().unwrap_or_default())?;
        let (timeout_name, timeout) = variables.of_traces("TIMEOUT");
        let timeout = timeout
            .map(|value| milliseconds(&timeout_name, &value))
            .transpose()?;
        let (certificates_name, certificates) = variables.of_traces("CERTIFICATE");
        if let Some(file) = &certificates
            && protocol != Protocol::Grpc
        {
            return Err(wrong(
                &certificates_name,
                file,
                "it with the protocol grpc alone; http/protobuf trusts what the system does, or the file that SSL_CERT_FILE names",
            ));
        }
        let resource = variables.get("OTEL_RESOURCE_ATTRIBUTES");
        Ok(Some(Self {
            endpoint,
            protocol,
            headers,
            certificates: certificates.map(PathBuf::from),
            client: variables.client(protocol)?,
            is_compressed: variables.is_compressed()?,
            sampling: variables.sampling()?,
            batches: variables.batches(timeout)?,
            resource: pairs(
                "OTEL_RESOURCE_ATTRIBUTES",
                resource.as_deref().unwrap_or_default(),
            )?,
            service_name: variables.get("OTEL_SERVICE_NAME"),
        }))
    }

    /// The file (PEM) with the certificates for verifying a collector that uses gRPC with TLS; `None` if it does not
    /// use TLS.
    #[must_use]
    pub fn collector_certificates(&self) -> Option<PathBuf> {
        self.endpoint.starts_with("https://").then(|| {
            let given = self.certificates.clone();
            given.unwrap_or_else(|| SYSTEM_CERTIFICATES.into())
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, SettingsError> {
        TraceSettings::from_variables(|name| {
            variables
                .iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318"),
                ("OTEL_SDK_DISABLED", "true"),
            ],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318"),
                ("OTEL_TRACES_EXPORTER", "none"),
            ],
        ] {
            assert_eq!(read(off), Ok(None), "{off:?}");
        }
    }

    #[test]
    fn the_url_of_all_signals_is_the_base_of_that_of_spans() {
        let shared = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318/otlp/");
        let own = (
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "https://elsewhere/spans",
        );
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        for (variables, endpoint) in [
            (vec![shared], "http://there:4318/otlp/v1/traces"),
            (vec![shared, own], "https://elsewhere/spans"),
            (vec![shared, grpc], "http://there:4318/otlp/"),
        ] {
            let settings = read(&variables).unwrap().unwrap();
            assert_eq!(settings.endpoint, endpoint);
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_what_would_be_right() {
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "there:4318"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http:///v1"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://me:pw@there:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "some"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_RESOURCE_ATTRIBUTES", "nonsense"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"),
            ("OTEL_SDK_DISABLED", "perhaps"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/certificate.pem"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", ""),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/client.pem"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/client.key"),
        ] {
            let error = read(&[(name, value), there]).unwrap_err();
            assert_eq!(error.name, name);
            assert!(error.to_string().contains("; expected "), "{error}");
        }
        let ratio = [
            there,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ];
        assert_eq!(read(&ratio).unwrap_err().name, "OTEL_TRACES_SAMPLER_ARG");
    }

    #[test]
    fn a_certificate_of_this_process_needs_its_key_and_is_shown_by_grpc_alone() {
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://there:4317");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/client.pem");
        let key = ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/client.key");
        let settings = read(&[there, grpc, certificate, key]).unwrap().unwrap();
        let expected = ClientCertificate {
            certificate: "/client.pem".into(),
            key: "/client.key".into(),
        };
        assert_eq!(settings.client, Some(expected));
        for alone in [certificate, key] {
            let error = read(&[there, grpc, alone]).unwrap_err();
            assert_eq!(error.name, alone.0);
            assert!(error.expected.ends_with("beside it"), "{error}");
        }
        let error = read(&[there, certificate, key]).unwrap_err();
        assert!(error.expected.contains("grpc"), "{error}");
    }

    #[test]
    fn credentials_are_neither_in_errors_nor_in_what_is_shown_for_debugging() {
        let secret = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20hush"),
        ];
        let settings = read(&secret).unwrap().unwrap();
        let headers = [("authorization".to_owned(), "Basic hush".to_owned())];
        assert_eq!(settings.headers, headers);
        assert!(!format!("{settings:?}").contains("hush"));
        let broken = [secret[0], ("OTEL_EXPORTER_OTLP_HEADERS", "hush")];
        assert!(!read(&broken).unwrap_err().to_string().contains("hush"));
        for endpoint in ["https://me:hush@there:4318/v1", "me:hush@there:4318"] {
            let error = read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)]).unwrap_err();
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }

    #[test]
    fn samplers_are_those_of_the_specification() {
        let there = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://there:4318");
        let share = ("OTEL_TRACES_SAMPLER_ARG", "0.01");
        for (name, ratio, follows_parent) in [
            ("", 1.0, true),
            ("always_on", 1.0, false),
            ("always_off", 0.0, false),
            ("traceidratio", 0.01, false),
            ("parentbased_always_off", 0.0, true),
            ("parentbased_traceidratio", 0.01, true),
        ] {
            let settings = read(&[there, share, ("OTEL_TRACES_SAMPLER", name)]).unwrap();
            let expected = Sampling {
                ratio,
                follows_parent,
            };
            assert_eq!(settings.unwrap().sampling, expected, "{name}");
        }
    }
}
