//! A collector of spans, OTLP over gRPC or over HTTP on its own port. It keeps what it receives.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{KeyValue, any_value},
    trace::{
        self,
        v1::span::{self, SpanKind},
    },
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::support::poll_for;

/// How long a span may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// The protocol of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Grpc,
    Http,
}

/// The target of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub trace: String,
    pub span: String,
}

/// A span as it was received.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    /// The attributes of the process that recorded it.
    pub resource: Arc<BTreeMap<String, String>>,
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub links: Vec<Link>,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    /// Other texts: why it failed, and its events with their attributes.
    pub remarks: Vec<String>,
    pub begun: u64,
    pub ended: u64,
}

/// A collector on its own port.
pub struct Collector {
    _runtime: Runtime,
    address: SocketAddr,
    spoken: Spoken,
    kept: Kept,
}

/// What was received.
#[derive(Clone, Default)]
struct Kept {
    spans: Arc<Mutex<Vec<Span>>>,
    tenants: Arc<Mutex<BTreeSet<String>>>,
    compressions: Arc<Mutex<BTreeSet<String>>>,
}

impl Collector {
    pub fn start(spoken: Spoken) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let kept = Kept::default();
        let keeping = kept.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let keeping = keeping.clone();
                let service = service_fn(move |request| {
                    let keeping = keeping.clone();
                    async move { Ok::<_, Infallible>(take(request, spoken, &keeping).await) }
                });
                tokio::spawn(async move {
                    let stream = TokioIo::new(stream);
                    // The sender reports a connection that breaks.
                    let _ = match spoken {
                        Spoken::Grpc => {
                            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                                .serve_connection(stream, service)
                                .await
                        }
                        Spoken::Http => {
                            hyper::server::conn::http1::Builder::new()
                                .serve_connection(stream, service)
                                .await
                        }
                    };
                });
            }
        });
        Self {
            _runtime: runtime,
            address,
            spoken,
            kept,
        }
    }

    /// The variables that make a process export here, with little delay.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let protocol = match self.spoken {
            Spoken::Grpc => "grpc",
            Spoken::Http => "http/protobuf",
        };
        vec![
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://{}", self.address),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "x-tenant=blue%20team".to_owned(),
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "deployment.environment.name=test".to_owned(),
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ]
    }

    /// The received spans of one trace, in the order of their start.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.kept.spans.lock().unwrap();
        let mut found: Vec<Span> = spans
            .iter()
            .filter(|it| it.trace == trace)
            .cloned()
            .collect();
        found.sort_by_key(|span| span.begun);
        found
    }

    /// A span of one trace, once it has arrived.
    #[track_caller]
    pub fn span(&self, trace: &str, service: &str, name: &str) -> Span {
        let is_it = |span: &&Span| span.service == service && span.name == name;
        let found = || self.trace(trace).iter().find(is_it).cloned();
        poll_for(
            ARRIVAL,
            &format!(
                "{name} of {service} in {trace}, of {:#?}",
                self.names(trace)
            ),
            found,
        )
    }

    /// A short description of the received spans of a trace.
    pub fn names(&self, trace: &str) -> Vec<String> {
        let spans = self.trace(trace);
        spans
            .iter()
            .map(|span| format!("{}: {}", span.service, span.name))
            .collect()
    }

    /// The values of `x-tenant` that arrived with messages.
    pub fn tenants(&self) -> BTreeSet<String> {
        self.kept.tenants.lock().unwrap().clone()
    }

    /// The compressions of messages. `identity` means none.
    pub fn compressions(&self) -> BTreeSet<String> {
        self.kept.compressions.lock().unwrap().clone()
    }

    /// A span with links that satisfies the condition, if there is one.
    pub fn linked(&self, is_it: impl Fn(&Span) -> bool) -> Option<Span> {
        let spans = self.kept.spans.lock().unwrap();
        let mut linked = spans.iter().filter(|span| !span.links.is_empty());
        linked.find(|span| is_it(span)).cloned()
    }

    /// Every text that was received.
    pub fn texts(&self) -> Vec<String> {
        let spans = self.kept.spans.lock().unwrap();
        let texts = spans.iter().flat_map(|span| {
            let attributes = span
                .attributes
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            let others = span.remarks.iter().chain([&span.name]).cloned();
            attributes.chain(others).collect::<Vec<_>>()
        });
        texts.collect()
    }
}

async fn take(
    request: Request<Incoming>,
    spoken: Spoken,
    kept: &Kept,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let path = match spoken {
        Spoken::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Spoken::Http => "/v1/traces",
    };
    assert_eq!(request.uri().path(), path);
    let (tenant, compression) = {
        let header = |name: &str| {
            let value = request.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let compression = header(match spoken {
            Spoken::Grpc => "grpc-encoding",
            Spoken::Http => "content-encoding",
        });
        (header("x-tenant"), compression)
    };
    if let Some(tenant) = tenant {
        kept.tenants.lock().unwrap().insert(tenant);
    }
    let compression = compression.unwrap_or_else(|| "identity".to_owned());
    let is_gzip = compression == "gzip";
    kept.compressions.lock().unwrap().insert(compression);
    let Ok(body) = request.into_body().collect().await else {
        return Response::new(Full::new(Bytes::new()).boxed());
    };
    let body = body.to_bytes();
    // A gRPC message is preceded by a compressed flag and its length (gRPC over HTTP/2, "Length-Prefixed-Message").
    let (is_compressed, message) = match spoken {
        Spoken::Grpc => (body[0] == 1, body.slice(5..)),
        Spoken::Http => (is_gzip, body),
    };
    let message = if is_compressed {
        let mut opened = Vec::new();
        let mut decoder = GzDecoder::new(&*message);
        decoder.read_to_end(&mut opened).unwrap();
        Bytes::from(opened)
    } else {
        message
    };
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    kept.spans.lock().unwrap().extend(read(request));
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    match spoken {
        Spoken::Http => {
            let mut response = Response::new(Full::new(Bytes::from(answer)).boxed());
            let kind = "application/x-protobuf".parse().unwrap();
            response.headers_mut().insert("content-type", kind);
            response
        }
        Spoken::Grpc => {
            let mut framed = vec![0];
            framed.extend(u32::try_from(answer.len()).unwrap().to_be_bytes());
            framed.extend(answer);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let body = Full::new(Bytes::from(framed))
                .with_trailers(std::future::ready(Some(Ok(trailers))))
                .boxed();
            let mut response = Response::new(body);
            let kind = "application/grpc".parse().unwrap();
            response.headers_mut().insert("content-type", kind);
            response
        }
    }
}

fn read(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = Arc::new(attributes(&of_resource.resource.unwrap().attributes));
        assert_eq!(resource["deployment.environment.name"], "test");
        assert_eq!(resource["telemetry.sdk.language"], "rust");
        let service = &resource["service.name"];
        for span in of_resource.scope_spans.into_iter().flat_map(|it| it.spans) {
            spans.push(Span {
                service: service.clone(),
                resource: Arc::clone(&resource),
                kind: span.kind(),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                remarks: remarks(&span),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: links(&span.links),
                attributes: attributes(&span.attributes),
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
            });
        }
    }
    spans
}

fn remarks(span: &trace::v1::Span) -> Vec<String> {
    let status = span.status.iter().map(|status| status.message.clone());
    let events = span.events.iter().flat_map(|event| {
        let attributes = attributes(&event.attributes).into_iter();
        let attributes = attributes.map(|(name, value)| format!("{name}={value}"));
        attributes.chain([event.name.clone()]).collect::<Vec<_>>()
    });
    status.chain(events).collect()
}

fn links(links: &[span::Link]) -> Vec<Link> {
    let link = |link: &span::Link| Link {
        trace: hex(&link.trace_id),
        span: hex(&link.span_id),
    };
    links.iter().map(link).collect()
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|it| it.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .iter()
        .map(|pair| (pair.key.clone(), text(pair)))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
