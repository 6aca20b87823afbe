//! The HTTP server of a service: the layers that every route gets, and a shutdown that has an end.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use super::problem::Problem;
use crate::shutdown::Shutdown;
use crate::trace_context::propagate_trace;

/// The header that names a request, in logs and in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// How requests are served. The port belongs to each service.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "HTTP")]
pub struct HttpSettings {
    /// The address to listen on; 0.0.0.0 for all.
    #[arg(
        long,
        env = "TANDEM_HOST",
        value_name = "ADDRESS",
        default_value = "127.0.0.1"
    )]
    pub host: IpAddr,

    /// How long an answer may take, such as `10s` or `500ms`; then the request is answered with 503.
    #[arg(long, env = "TANDEM_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = crate::settings::parse_duration)]
    pub request_timeout: Duration,

    /// The largest body that is taken, in bytes.
    #[arg(
        long,
        env = "TANDEM_MAX_BODY",
        value_name = "BYTES",
        default_value = "1048576"
    )]
    pub max_body: usize,

    /// How long open requests may go on once shutdown is requested.
    #[arg(long, env = "TANDEM_DRAIN_LIMIT", value_name = "DURATION", default_value = "2s", value_parser = crate::settings::parse_duration)]
    pub drain_limit: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            request_timeout: Duration::from_secs(10),
            max_body: 1024 * 1024,
            drain_limit: Duration::from_secs(2),
        }
    }
}

/// Why a port could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "port {port} on {host} is taken by another program; stop that one, or choose another port with {flag}"
    )]
    Taken {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// This user may not have it.
    #[error(
        "port {port} on {host} may not be used by this user; choose one above 1023 with {flag}"
    )]
    Denied {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// The flag that changes it.
        flag: &'static str,
    },
    /// The address is not one of this machine.
    #[error(
        "{host} is no address of this machine; choose another with --host (127.0.0.1 for this machine only, 0.0.0.0 for all)"
    )]
    NoSuchAddress {
        /// The address.
        host: IpAddr,
    },
    /// Anything else.
    #[error("cannot listen on {host}:{port}: {source}")]
    Other {
        /// The address.
        host: IpAddr,
        /// The port.
        port: u16,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Why serving ended other than by shutdown.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener failed.
    #[error("the HTTP server failed: {0}")]
    Io(#[from] io::Error),
}

/// Listens on a port; 0 takes a free one. `flag` is the flag by which the user changes it, such as `--port`.
///
/// # Errors
///
/// [`BindError`] says which port, why not, and what to do.
pub async fn bind(host: IpAddr, port: u16, flag: &'static str) -> Result<TcpListener, BindError> {
    TcpListener::bind(SocketAddr::new(host, port))
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::Taken { host, port, flag },
            io::ErrorKind::PermissionDenied => BindError::Denied { host, port, flag },
            io::ErrorKind::AddrNotAvailable => BindError::NoSuchAddress { host },
            _ => BindError::Other { host, port, source },
        })
}

/// Serves until shutdown is requested, then lets open requests end for at most [`HttpSettings::drain_limit`].
///
/// # Errors
///
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), ServeError> {
    let app = with_layers(router, settings);
    let stop = shutdown.token();
    let server = axum::serve(listener, app)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .into_future();
    let over = async {
        shutdown.requested().await;
        tokio::time::sleep(settings.drain_limit).await;
    };
    tokio::select! {
        served = server => Ok(served?),
        () = over => {
            tracing::warn!(
                limit_ms = settings.drain_limit.as_millis(),
                "requests were still open when the drain limit was over"
            );
            Ok(())
        }
    }
}

/// The layers that [`serve`] puts around a router: request id, trace context, metrics, panics, timeout, body limit, and
/// problems in place of bare errors.
pub fn with_layers(router: Router, settings: &HttpSettings) -> Router {
    // Each layer wraps those above it: the last one sees a request first.
    router
        .layer(DefaultBodyLimit::max(settings.max_body))
        .layer(middleware::from_fn_with_state(
            settings.max_body,
            refuse_large_bodies,
        ))
        .layer(middleware::from_fn_with_state(
            settings.request_timeout,
            limit_time,
        ))
        .layer(CatchPanicLayer::custom(answer_panic))
        .layer(middleware::from_fn(explain_bare_errors))
        .layer(middleware::from_fn(count_requests))
        .layer(middleware::from_fn(propagate_trace))
        .layer(middleware::from_fn(name_request))
}

/// Takes the caller's request id over, or makes one; the answer carries it.
async fn name_request(mut request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| {
            !id.is_empty()
                && id.len() <= MAX_REQUEST_ID
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).ok());
    let Some(id) = id else {
        return next.run(request).await;
    };
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Counts by route template, not by path: paths hold ids, and every id would be a series of its own.
async fn count_requests(request: Request, next: Next) -> Response {
    let method = known_method(request.method().as_str());
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("UNKNOWN", MatchedPath::as_str)
        .to_owned();
    let start = Instant::now();
    let response = next.run(request).await;
    let status = response.status();
    let outcome = match status.as_u16() {
        100..=199 => "INFORMATIONAL",
        200..=299 => "SUCCESS",
        300..=399 => "REDIRECTION",
        400..=499 => "CLIENT_ERROR",
        _ => "SERVER_ERROR",
    };
    metrics::histogram!(
        "http_server_requests_seconds",
        "method" => method,
        "uri" => route,
        "status" => status.as_str().to_owned(),
        "outcome" => outcome,
    )
    .record(start.elapsed().as_secs_f64());
    response
}

/// A method may be any token: only the usual ones become a label.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}

/// A declared length is judged before a byte is read; an undeclared one by the extractors' limit.
async fn refuse_large_bodies(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<u64>().ok());
    if declared.is_some_and(|length| length > limit as u64) {
        return Problem::too_large(Some(limit))
            .with_instance(request.uri().path())
            .into_response();
    }
    next.run(request).await
}

/// Limits the time until an answer begins: streams and WebSockets may go on for as long as they like.
async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            tracing::warn!(
                path,
                limit_ms = limit.as_millis(),
                "a request took too long"
            );
            Problem::unavailable(format!(
                "the answer took longer than {} ms; whether the request took effect is not known",
                limit.as_millis()
            ))
            .with_instance(path)
            .into_response()
        }
    }
}

fn answer_panic(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a request handler panicked");
    Problem::internal().into_response()
}

/// Gives errors that the framework answers with an empty body (no route, wrong method) the shape of all others.
async fn explain_bare_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let response = next.run(request).await;
    let status = response.status();
    let bare = (status.is_client_error() || status.is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE)
        && response.body().is_end_stream();
    if !bare {
        return response;
    }
    let problem = Problem::new(status).with_instance(path.as_str());
    let problem = match status {
        StatusCode::NOT_FOUND => problem.with_detail(format!("there is nothing at {path}")),
        StatusCode::METHOD_NOT_ALLOWED => {
            let allowed = response
                .headers()
                .get(header::ALLOW)
                .and_then(|allowed| allowed.to_str().ok())
                .unwrap_or("another method");
            problem.with_detail(format!("{path} does not take {method}; it takes {allowed}"))
        }
        _ => problem,
    };
    let mut explained = problem.into_response();
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            explained.headers_mut().insert(name, value.clone());
        }
    }
    explained
}
