//! A collector of spans: OTLP over gRPC and over HTTP, on one port each, that keeps what it is sent.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

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
    trace::v1::span::SpanKind,
};
use prost::Message;
use tokio::{net::TcpListener, runtime::Runtime};

use crate::support::poll_for;

/// How long a span may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    Grpc,
    Http,
}

/// A span as it was sent.
#[derive(Clone, Debug)]
pub struct Span {
    pub service: String,
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    pub parent: String,
    /// The spans that it links to.
    pub links: Vec<String>,
    pub attributes: BTreeMap<String, String>,
    pub failed: bool,
    pub begun: u64,
    pub ended: u64,
}

/// A collector on a port of its own.
pub struct Collector {
    _runtime: Runtime,
    address: SocketAddr,
    spoken: Spoken,
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<HashSet<String>>>,
}

impl Collector {
    pub fn start(spoken: Spoken) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (spans, headers) = (Arc::default(), Arc::default());
        let kept = (Arc::clone(&spans), Arc::clone(&headers));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = service_fn(move |request| {
                    let (spans, headers) = kept.clone();
                    async move { Ok::<_, Infallible>(take(request, spoken, &spans, &headers).await) }
                });
                tokio::spawn(async move {
                    let stream = TokioIo::new(stream);
                    // A connection that breaks is the sender's to tell of.
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
            spans,
            headers,
        }
    }

    /// The variables that make a process send here, soon.
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

    /// What came of one trace, in order of beginning.
    pub fn trace(&self, trace: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        let mut found: Vec<Span> = spans
            .iter()
            .filter(|it| it.trace == trace)
            .cloned()
            .collect();
        found.sort_by_key(|span| span.begun);
        found
    }

    /// A span of one trace, once it is there.
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

    /// What there is of a trace, in short.
    pub fn names(&self, trace: &str) -> Vec<String> {
        let spans = self.trace(trace);
        spans
            .iter()
            .map(|span| format!("{}: {}", span.service, span.name))
            .collect()
    }

    /// The values of `x-tenant` that came with messages.
    pub fn tenants(&self) -> HashSet<String> {
        self.headers.lock().unwrap().clone()
    }

    /// A span of this name that links to others, if there is one.
    pub fn linked(&self, name: &str) -> Option<Span> {
        let spans = self.spans.lock().unwrap();
        let mut linked = spans.iter().filter(|span| !span.links.is_empty());
        linked.find(|span| span.name == name).cloned()
    }

    /// Every text that was sent.
    pub fn texts(&self) -> Vec<String> {
        let spans = self.spans.lock().unwrap();
        let texts = spans.iter().flat_map(|span| {
            let attributes = span
                .attributes
                .iter()
                .map(|(name, value)| format!("{name}={value}"));
            attributes.chain([span.name.clone()]).collect::<Vec<_>>()
        });
        texts.collect()
    }
}

async fn take(
    request: Request<Incoming>,
    spoken: Spoken,
    spans: &Mutex<Vec<Span>>,
    headers: &Mutex<HashSet<String>>,
) -> Response<http_body_util::combinators::BoxBody<Bytes, Infallible>> {
    let path = match spoken {
        Spoken::Grpc => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Spoken::Http => "/v1/traces",
    };
    assert_eq!(request.uri().path(), path);
    if let Some(tenant) = request.headers().get("x-tenant") {
        headers
            .lock()
            .unwrap()
            .insert(tenant.to_str().unwrap().to_owned());
    }
    let Ok(body) = request.into_body().collect().await else {
        return Response::new(Full::new(Bytes::new()).boxed());
    };
    let body = body.to_bytes();
    // A gRPC message has a flag and its length before it (gRPC over HTTP/2, "Length-Prefixed-Message").
    let message = if spoken == Spoken::Grpc {
        body.slice(5..)
    } else {
        body
    };
    let request = ExportTraceServiceRequest::decode(message).unwrap();
    spans.lock().unwrap().extend(read(request));
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
        let resource = attributes(&of_resource.resource.unwrap().attributes);
        assert_eq!(resource["deployment.environment.name"], "test");
        let service = &resource["service.name"];
        for span in of_resource.scope_spans.into_iter().flat_map(|it| it.spans) {
            spans.push(Span {
                service: service.clone(),
                kind: span.kind(),
                failed: span.status.as_ref().is_some_and(|status| status.code == 2),
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
                attributes: attributes(&span.attributes),
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
            });
        }
    }
    spans
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
