//! The HTTP server of a service: the layers that every route gets, and a shutdown that has an end.

use std::any::Any;
use std::convert::Infallible;
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
use tower::Service;
use tower::make::Shared;
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
    serve_service(listener, with_layers(router, settings), settings, shutdown).await
}

/// The same of anything that answers requests and has its layers.
pub(super) async fn serve_service<S>(
    listener: TcpListener,
    service: S,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), ServeError>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let stop = shutdown.token();
    let server = axum::serve(listener, Shared::new(service))
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
        // The router adds the header `Allow` outside of all layers.
        StatusCode::METHOD_NOT_ALLOWED => problem.with_detail(format!(
            "{path} does not take {method}; the header Allow lists what it takes"
        )),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::Extension;
    use axum::body::Body;
    use axum::http::request::Builder;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::MetricsHandle;
    use crate::trace_context::TraceContext;

    fn app() -> Router {
        let routes = Router::new()
            .route("/customers/{id}", get(|| async { "found" }))
            .route("/echo", post(|body: String| async move { body }))
            .route(
                "/trace",
                get(|Extension(trace): Extension<TraceContext>| async move {
                    assert_eq!(TraceContext::current(), Some(trace));
                    trace.to_string()
                }),
            )
            .route("/panic", get(panics))
            .route("/slow", get(std::future::pending::<()>));
        let settings = HttpSettings {
            request_timeout: Duration::from_millis(20),
            max_body: 10,
            ..HttpSettings::default()
        };
        with_layers(routes, &settings)
    }

    async fn panics() {
        panic!("secret of the inside");
    }

    async fn ask(request: Builder, body: impl Into<Body>) -> (Response<()>, String) {
        let response = app()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (
            Response::from_parts(parts, ()),
            String::from_utf8(body.to_vec()).unwrap(),
        )
    }

    async fn problem(request: Builder, body: impl Into<Body>) -> (Response<()>, Problem) {
        let (response, body) = ask(request, body).await;
        let problem: Problem = serde_json::from_str(&body).expect(&body);
        assert_eq!(response.status(), problem.status_code());
        (response, problem)
    }

    #[tokio::test]
    async fn an_unknown_path_is_a_problem() {
        let (response, problem) = problem(Request::get("/nowhere"), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(problem.instance.as_deref(), Some("/nowhere"));
    }

    #[tokio::test]
    async fn a_wrong_method_is_a_problem_and_the_right_one_is_named() {
        let (response, problem) = problem(Request::delete("/echo"), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "POST");
        assert!(problem.detail.unwrap().contains("DELETE"));
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_that_tells_nothing_of_the_inside() {
        let (response, body) = ask(Request::get("/panic"), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!body.contains("secret"), "{body}");
        assert!(response.headers().contains_key(REQUEST_ID));
    }

    #[tokio::test]
    async fn an_answer_that_takes_too_long_is_a_problem() {
        let (response, problem) = problem(Request::get("/slow"), Body::empty()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(problem.detail.unwrap().contains("20 ms"));
    }

    #[tokio::test]
    async fn a_declared_length_over_the_limit_is_a_problem() {
        let request = Request::post("/echo").header(header::CONTENT_LENGTH, "11");
        let (response, problem) = problem(request, "01234567890").await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(problem.detail.unwrap().contains("10 bytes"));
    }

    #[tokio::test]
    async fn a_body_that_turns_out_too_large_is_refused() {
        let (response, _) = ask(Request::post("/echo"), "01234567890").await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let (response, body) = ask(Request::post("/echo"), "0123456789").await;
        assert_eq!(
            (response.status(), body.as_str()),
            (StatusCode::OK, "0123456789")
        );
    }

    #[tokio::test]
    async fn a_request_id_is_taken_over_or_made() {
        let given = Request::get("/customers/1").header(REQUEST_ID, "abc");
        let (response, _) = ask(given, Body::empty()).await;
        assert_eq!(response.headers()[REQUEST_ID], "abc");
        let too_long = Request::get("/customers/1").header(REQUEST_ID, "x".repeat(129));
        let (response, _) = ask(too_long, Body::empty()).await;
        assert_eq!(response.headers()[REQUEST_ID].len(), 36);
    }

    #[tokio::test]
    async fn a_trace_is_continued() {
        let caller = TraceContext::generate();
        let request = Request::get("/trace").header("traceparent", caller.to_string());
        let (_, seen) = ask(request, Body::empty()).await;
        let seen: TraceContext = seen.parse().unwrap();
        assert_eq!(seen.trace_id(), caller.trace_id());
        assert_ne!(seen.span_id(), caller.span_id());
    }

    #[test]
    fn requests_are_counted_by_route_and_not_by_path() {
        let (recorder, handle) = MetricsHandle::detached("test").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                ask(Request::get("/customers/1"), Body::empty()).await;
                ask(Request::get("/customers/2"), Body::empty()).await;
                ask(Request::get("/nowhere"), Body::empty()).await;
            });
        });
        let rendered = handle.render();
        let counts: Vec<&str> = rendered
            .lines()
            .filter(|line| line.starts_with("http_server_requests_seconds_count"))
            .collect();
        assert_eq!(counts.len(), 2, "{rendered}");
        assert!(
            counts
                .iter()
                .any(|line| line.contains("uri=\"/customers/{id}\"") && line.ends_with(" 2")),
            "{rendered}"
        );
        assert!(counts.iter().any(|line| line.contains("uri=\"UNKNOWN\"")));
    }

    #[tokio::test]
    async fn a_taken_port_is_named_with_the_flag_that_changes_it() {
        let host = IpAddr::from([127, 0, 0, 1]);
        let first = bind(host, 0, "--port").await.unwrap();
        let taken = first.local_addr().unwrap().port();
        let refused = bind(host, taken, "--accounts-port").await.unwrap_err();
        let sentence = refused.to_string();
        assert!(matches!(refused, BindError::Taken { .. }));
        assert!(
            sentence.contains(&taken.to_string()) && sentence.contains("--accounts-port"),
            "{sentence}"
        );
    }

    #[tokio::test]
    async fn serving_ends_with_shutdown_even_when_a_request_never_does() {
        let settings = HttpSettings {
            drain_limit: Duration::from_millis(50),
            ..HttpSettings::default()
        };
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let (entered, mut was_entered) = tokio::sync::mpsc::channel::<()>(1);
        let router = Router::new().route(
            "/forever",
            get(move || async move {
                entered.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }),
        );
        let stop = shutdown.clone();
        let server = tokio::spawn(async move { serve(listener, router, &settings, &stop).await });
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        client
            .write_all(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        was_entered.recv().await.unwrap();
        shutdown.request("test");
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .expect("the server ends in time")
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn an_open_request_may_end_after_shutdown_was_requested() {
        let settings = HttpSettings::default();
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = Shutdown::new();
        let in_handler = shutdown.clone();
        let router = Router::new().route(
            "/last",
            get(move || async move {
                in_handler.request("test");
                tokio::task::yield_now().await;
                "done"
            }),
        );
        let server = serve(listener, router, &settings, &shutdown);
        let client = async {
            let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
            client
                .write_all(b"GET /last HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let both = async { tokio::join!(server, client) };
        let (served, answer) = tokio::time::timeout(Duration::from_secs(5), both)
            .await
            .unwrap();
        served.unwrap();
        assert!(answer.ends_with("done"), "{answer}");
    }
}
