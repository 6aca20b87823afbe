//! The REST routes on the gateway's port: passed on to the service that owns them.

use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use hive_router::ntex::http::{HeaderMap, StatusCode, header};
use hive_router::ntex::util::{Bytes, BytesMut};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use hive_router::tracing;

use super::configuration::Services;
use super::problem::{method_not_allowed, problem};

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// For a connection to a service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For a client to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// For a service to begin its answer, and between two parts of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that belong to one connection (RFC 9110, 7.6.1), and those that each side sets itself.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
    "content-length",
];

/// The service that owns a route.
#[derive(Debug, Clone, Copy)]
enum Service {
    Accounts,
    Orders,
}

/// Passes requests on to the services.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    client: reqwest::Client,
    services: Services,
}

impl Proxy {
    /// A proxy with a connection pool of its own.
    pub(super) fn new(services: Services) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("the gateway's HTTP client could not be made")?;
        Ok(Self { client, services })
    }

    fn base_url(&self, service: Service) -> &str {
        match service {
            Service::Accounts => &self.services.accounts,
            Service::Orders => &self.services.orders,
        }
    }

    async fn pass_on(
        &self,
        service: Service,
        request: &HttpRequest,
        body: web::types::Payload,
    ) -> HttpResponse {
        let path = request.path().to_owned();
        let body = match read_body(request, body).await {
            Ok(body) => body,
            Err(refusal) => return problem(refusal.status(), &path, &refusal.to_string()),
        };
        let target = request
            .uri()
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let sent = self
            .client
            .request(
                method(request),
                format!("{}{target}", self.base_url(service)),
            )
            .headers(forwarded_headers(request))
            .body(body.to_vec())
            .send()
            .await;
        match sent {
            Ok(answer) => passed_back(answer),
            Err(error) => {
                tracing::warn!(?service, %path, error = %error, "a service did not answer a REST request");
                let (status, what) = if error.is_timeout() && !error.is_connect() {
                    (StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "cannot be reached")
                };
                let name = match service {
                    Service::Accounts => "accounts",
                    Service::Orders => "orders",
                };
                problem(
                    status,
                    &path,
                    &format!("The {name} service {what}; try again later."),
                )
            }
        }
    }
}

/// Adds the REST routes.
pub(super) fn routes(app: &mut ServiceConfig) {
    route(app, "/accounts/customer/create", Service::Accounts, "POST");
    route(app, "/accounts/customer/print", Service::Accounts, "GET");
    route(app, "/orders/list", Service::Orders, "GET");
    route(app, "/orders/order/{id}", Service::Orders, "GET");
}

fn route(app: &mut ServiceConfig, path: &str, service: Service, allowed: &'static str) {
    let handler = async move |request: HttpRequest,
                              body: web::types::Payload,
                              proxy: web::types::State<Proxy>| {
        if request.method().as_str() == allowed {
            proxy.pass_on(service, &request, body).await
        } else {
            method_not_allowed(request.path(), allowed)
        }
    };
    app.service(web::resource(path).route(web::to(handler)));
}

/// Why a request's body was not taken.
#[derive(Debug, thiserror::Error)]
enum BodyRefused {
    #[error("The body is larger than {BODY_LIMIT} bytes, the limit.")]
    TooLarge,
    #[error("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs())]
    TooSlow,
    #[error("The body could not be read: {0}.")]
    Broken(String),
}

impl BodyRefused {
    fn status(&self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        }
    }
}

async fn read_body(
    request: &HttpRequest,
    mut body: web::types::Payload,
) -> Result<Bytes, BodyRefused> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(BodyRefused::TooLarge);
    }
    let read = async {
        let mut bytes = BytesMut::new();
        while let Some(part) = body.recv().await {
            let part = part.map_err(|error| BodyRefused::Broken(error.to_string()))?;
            if bytes.len() + part.len() > BODY_LIMIT {
                return Err(BodyRefused::TooLarge);
            }
            bytes.extend_from_slice(&part);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .unwrap_or(Err(BodyRefused::TooSlow))
}

fn method(request: &HttpRequest) -> reqwest::Method {
    if request.method().as_str() == "POST" {
        reqwest::Method::POST
    } else {
        reqwest::Method::GET
    }
}

/// The client's headers without those of its connection, and with `X-Forwarded-*`.
fn forwarded_headers(request: &HttpRequest) -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::new();
    let named_by_connection = connection_options(request.headers());
    for (name, value) in request.headers() {
        let name = name.as_str();
        if HOP_BY_HOP.contains(&name) || named_by_connection.iter().any(|option| option == name) {
            continue;
        }
        if let (Ok(name), Ok(value)) = (
            reqwest::header::HeaderName::from_bytes(name.as_bytes()),
            reqwest::header::HeaderValue::from_bytes(value.as_bytes()),
        ) {
            headers.append(name, value);
        }
    }
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = reqwest::header::HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    };
    if let Some(peer) = request.peer_addr() {
        let chain = text(request.headers(), "x-forwarded-for").map_or_else(
            || peer.ip().to_string(),
            |before| format!("{before}, {}", peer.ip()),
        );
        set("x-forwarded-for", chain);
    }
    if let Some(host) =
        text(request.headers(), "x-forwarded-host").or_else(|| text(request.headers(), "host"))
    {
        set("x-forwarded-host", host.to_owned());
    }
    set(
        "x-forwarded-proto",
        text(request.headers(), "x-forwarded-proto")
            .unwrap_or("http")
            .to_owned(),
    );
    headers
}

fn connection_options(headers: &HeaderMap) -> Vec<String> {
    text(headers, "connection")
        .map(|options| {
            options
                .split(',')
                .map(|option| option.trim().to_ascii_lowercase())
                .collect()
        })
        .unwrap_or_default()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn passed_back(answer: reqwest::Response) -> HttpResponse {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            response.header(name.as_str(), value.as_bytes());
        }
    }
    response.streaming(answer.bytes_stream().map(|part| {
        part.map(|bytes| Bytes::copy_from_slice(&bytes))
            .map_err(std::io::Error::other)
    }))
}
