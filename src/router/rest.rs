//! The REST routes on the gateway's port. Requests are passed on to the service that owns the route.

use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use futures::{Stream, StreamExt, TryStreamExt};
use hive_router::ntex::http::body::{Body, SizedStream};
use hive_router::ntex::http::{HeaderMap, Method, StatusCode, header};
use hive_router::ntex::util::{Bytes, BytesMut};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use hive_router::tracing;
use reqwest::Url;
use reqwest::header::HeaderValue;
use tandem_front_door::TlsSettings;
use tandem_service::web::legacy::{
    ALL_ORDERS, CREATE_CUSTOMER, ORDERS_OF_CUSTOMER, PRINT_CUSTOMER,
};

use super::configuration::Services;
use super::in_process::Peer;
use super::methods::{READ, came_as_head};
use super::problem::{method_not_allowed, problem};
use super::target::Target;
use crate::tls_client::trusting;

/// Largest request body, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// A response up to this many bytes is passed on in one piece, together with its head.
const WHOLE: u64 = 256 * 1024;
/// How many bytes of a refused body are read and discarded, so that the sender sees the refusal.
const DISCARD_LIMIT: usize = 16 * BODY_LIMIT;
/// Time limit for connecting to a service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit for a client to send its body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for a service to begin its response, and between two parts of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Headers that belong to one connection (RFC 9110, 7.6.1), and headers that each side sets itself.
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

/// Headers in which a browser names the page that sends the request. The front door of this port has judged them. A
/// service would take this port's own pages for pages of another origin.
const OF_THE_PAGE: [&str; 5] = [
    "origin",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "sec-fetch-user",
];

/// The service that owns a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Accounts,
    Orders,
}

/// Passes requests on to the services.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    client: reqwest::Client,
    accounts: Url,
    orders: Url,
}

impl Service {
    /// The name in messages and paths.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Orders => "orders",
        }
    }
}

impl Proxy {
    /// Makes a proxy with its own connection pool.
    pub(super) fn new(services: &Services, tls: &TlsSettings) -> anyhow::Result<Self> {
        let client = trusting(reqwest::Client::builder(), tls)?
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("the gateway's HTTP client could not be made")?;
        let base = |flag: &str, url: &str| {
            Url::parse(url).with_context(|| format!("{flag} `{url}` is no base URL"))
        };
        Ok(Self {
            client,
            accounts: base("--accounts-url", &services.accounts)?,
            orders: base("--orders-url", &services.orders)?,
        })
    }

    fn address(&self, service: Service, target: &Target) -> Option<Url> {
        target.below(match service {
            Service::Accounts => &self.accounts,
            Service::Orders => &self.orders,
        })
    }

    /// Passes a request on to `target` on that service. `authorization`, if given, replaces the client's.
    pub(super) async fn pass_on(
        &self,
        service: Service,
        target: &Target,
        authorization: Option<&HeaderValue>,
        request: &HttpRequest,
        body: web::types::Payload,
    ) -> HttpResponse {
        let path = request.path().to_owned();
        let Some(address) = self.address(service, target) else {
            let detail = "The address of this service takes no paths.";
            return problem(StatusCode::SERVICE_UNAVAILABLE, &path, detail);
        };
        let body = match read_body(request, body).await {
            Ok(body) => body,
            Err(refusal) => return problem(refusal.status(), &path, &refusal.to_string()),
        };
        let mut headers = forwarded_headers(request);
        if let Some(authorization) = authorization {
            headers.insert(reqwest::header::AUTHORIZATION, authorization.clone());
        }
        let mut asking = self
            .client
            .request(method(request), address)
            .headers(headers);
        if !body.is_empty() {
            asking = asking.body(body.to_vec());
        }
        let answered = async { passed_back(asking.send().await?).await };
        match answered.await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(?service, %path, error = %error, "a service did not answer a REST request");
                let (status, what) = if error.is_timeout() && !error.is_connect() {
                    (StatusCode::GATEWAY_TIMEOUT, "did not answer in time")
                } else {
                    (StatusCode::SERVICE_UNAVAILABLE, "cannot be reached")
                };
                let known = if request.method() == Method::GET || error.is_connect() {
                    "try again later"
                } else {
                    "whether this was carried out is not known"
                };
                let name = service.name();
                let detail = format!("The {name} service {what}; {known}.");
                problem(status, &path, &detail)
            }
        }
    }
}

/// Adds the REST routes.
pub(super) fn routes(app: &mut ServiceConfig) {
    route(app, CREATE_CUSTOMER.path, Service::Accounts, "POST");
    route(app, PRINT_CUSTOMER.path, Service::Accounts, READ);
    route(app, ALL_ORDERS.path, Service::Orders, READ);
    route(app, ORDERS_OF_CUSTOMER.path, Service::Orders, READ);
}

fn route(app: &mut ServiceConfig, path: &'static str, service: Service, allowed: &'static str) {
    let handler = async move |request: HttpRequest,
                              body: web::types::Payload,
                              proxy: web::types::State<Proxy>| {
        // A HEAD has already become a GET here.
        let method = request.method().as_str();
        if !allowed.split(", ").any(|allowed| allowed == method) {
            return method_not_allowed(&request, allowed);
        }
        let uri = request.uri();
        match Target::on_route(path, uri.path(), uri.query()) {
            Ok(target) => proxy.pass_on(service, &target, None, &request, body).await,
            Err(elsewhere) => {
                let detail = elsewhere.to_string();
                problem(StatusCode::BAD_REQUEST, request.path(), &detail)
            }
        }
    };
    app.service(web::resource(path).route(web::to(handler)));
}

/// Why a request's body was refused.
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

#[expect(clippy::disallowed_methods, reason = "connections are real")]
async fn read_body(
    request: &HttpRequest,
    mut body: web::types::Payload,
) -> Result<Bytes, BodyRefused> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // This client sends nothing before it gets a 100.
    let waits = request.headers().contains_key(header::EXPECT);
    if waits && announced.is_some_and(|length| length > BODY_LIMIT as u64) {
        return Err(BodyRefused::TooLarge);
    }
    let read = async {
        let (mut bytes, mut received) = (BytesMut::new(), 0);
        while let Some(part) = body.recv().await {
            let part = part.map_err(|error| BodyRefused::Broken(error.to_string()))?;
            received += part.len();
            if received > DISCARD_LIMIT {
                return Err(BodyRefused::TooLarge);
            }
            if received <= BODY_LIMIT {
                bytes.extend_from_slice(&part);
            }
        }
        // Read to the end even if it is too large: a client that sends everything before it reads would not see an
        // earlier refusal.
        if received > BODY_LIMIT {
            return Err(BodyRefused::TooLarge);
        }
        Ok(bytes.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, read)
        .await
        .unwrap_or(Err(BodyRefused::TooSlow))
}

fn method(request: &HttpRequest) -> reqwest::Method {
    match request.method().as_str() {
        "POST" => reqwest::Method::POST,
        _ if came_as_head(request) => reqwest::Method::HEAD,
        _ => reqwest::Method::GET,
    }
}

/// The client's headers without those of its connection and of its page, and with `X-Forwarded-*`.
fn forwarded_headers(request: &HttpRequest) -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::new();
    let named_by_connection = connection_options(request.headers());
    for (name, value) in request.headers() {
        let name = name.as_str();
        let stays_here = HOP_BY_HOP.contains(&name) || OF_THE_PAGE.contains(&name);
        if stays_here || named_by_connection.iter().any(|option| option == name) {
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
    if let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() {
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

/// The service's response. A small one is sent in one piece; a larger one with its length if that is known, or else in
/// chunks.
///
/// # Errors
/// When a small response does not arrive completely. If a large one breaks off, so does the client's connection.
async fn passed_back(answer: reqwest::Response) -> reqwest::Result<HttpResponse> {
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) {
            response.header(name.as_str(), value.as_bytes());
        }
    }
    // Taken from the header, because a response to HEAD has no body to measure.
    let length = answer
        .headers()
        .get(reqwest::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    Ok(match length {
        Some(length) if length <= WHOLE && answer.content_length() == Some(length) => {
            response.body(Bytes::copy_from_slice(&answer.bytes().await?))
        }
        Some(length) => {
            let parts = parts(answer).map_err(|error| Rc::from(Box::<dyn Error>::from(error)));
            response.body(Body::from_message(SizedStream::new(length, parts)))
        }
        None => response.streaming(parts(answer)),
    })
}

fn parts(answer: reqwest::Response) -> impl Stream<Item = std::io::Result<Bytes>> + Unpin {
    answer.bytes_stream().map(|part| {
        part.map(|bytes| Bytes::copy_from_slice(&bytes))
            .map_err(std::io::Error::other)
    })
}
