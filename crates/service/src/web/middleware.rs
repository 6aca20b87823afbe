//! What every request of a service gets, whichever route it takes: an id, its trace, a count, limits, and an answer that explains
//! itself also where the framework or a panic gave none.
//!
//! It is one function: each layer of its own would cost every request a copy of all that it wraps.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use tower::ServiceBuilder;
use tracing::Instrument;

use super::graphql_refusal::{self, PATH};
use super::legacy::Sunset;
use super::pages;
use super::problem::Problem;
use super::serve::HttpSettings;
use super::unread::read_on;
use tandem_runtime::{
    exemplars,
    span::{self, Span},
    trace_context::{TRACEPARENT, TraceContext},
};

/// The header that names a request, in logs and in answers.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The histogram of all requests.
const HTTP_REQUESTS: &str = "http_server_requests_seconds";

/// The longest request id that is taken over from a caller, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Bodies of the largest size that are read on and thrown away, so that their sender sees why: see [`super::unread`].
const READ_ON: usize = 16;

/// Puts all of that around a router.
pub fn with_middleware(router: Router, settings: &HttpSettings) -> Router {
    let limits = Limits {
        time: settings.request_timeout,
        body: settings.max_body,
        sunset: settings.rest_sunset.clone(),
    };
    router.layer(
        ServiceBuilder::new()
            .layer(middleware::from_fn_with_state(limits, attend))
            .layer(DefaultBodyLimit::max(settings.max_body)),
    )
}

#[derive(Clone, Debug)]
struct Limits {
    /// Until an answer begins.
    time: Duration,
    /// Bytes.
    body: usize,
    /// The end of the routes of older clients.
    sunset: Option<Sunset>,
}

/// Attends to a request from its arrival to the beginning of its answer.
async fn attend(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let id = name(&mut request);
    let asked = Asked::of(&request);
    let mut recorded = recorded(&request, &asked);
    let (trace, span) = continue_trace(&mut request, recorded.context());
    let answering = async {
        let request = read_on(request, limits.body.saturating_mul(READ_ON));
        let response = match refusal_by_length(&request, limits.body) {
            Some(refusal) => in_form_of(&asked, refusal),
            None => answer_in_time(request, next, limits.time)
                .await
                .unwrap_or_else(|problem| in_form_of(&asked, problem)),
        };
        explained(response, &asked)
    };
    let mut response = trace.scope(answering.instrument(span)).await;
    asked.count(response.status(), recorded.is_recorded().then_some(&trace));
    answered(&mut recorded, response.status());
    if let Some(sunset) = &limits.sunset {
        sunset.tell(response.headers_mut());
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Takes the caller's request id over, or makes one.
fn name(request: &mut Request) -> Option<HeaderValue> {
    let given = request
        .headers()
        .get(&REQUEST_ID)
        .filter(|id| {
            !id.is_empty()
                && id.len() <= MAX_REQUEST_ID
                && id.as_bytes().iter().all(u8::is_ascii_graphic)
        })
        .cloned();
    let id = given.or_else(|| HeaderValue::from_str(&uuid::Uuid::now_v7().to_string()).ok())?;
    request.headers_mut().insert(REQUEST_ID, id.clone());
    Some(id)
}

/// A refusal in the form that the clients of its path read: a GraphQL response under the GraphQL path, a problem elsewhere.
fn in_form_of(asked: &Asked, problem: Problem) -> Response {
    if asked.path == PATH {
        graphql_refusal::refused(problem)
    } else {
        problem.with_instance(asked.path.as_str()).into_response()
    }
}

/// A declared length is judged before a byte is read; an undeclared one by the extractors' limit.
fn refusal_by_length(request: &Request, limit: usize) -> Option<Problem> {
    let declared: u64 = request
        .headers()
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()?;
    (declared > limit as u64).then(|| Problem::too_large(Some(limit)))
}

/// Limits the time until an answer begins: streams and WebSockets may go on for as long as they like. What works on an answer that
/// comes too late is dropped.
async fn answer_in_time(
    request: Request,
    next: Next,
    limit: Duration,
) -> Result<Response, Problem> {
    let path = request.uri().path().to_owned();
    let answering = AssertUnwindSafe(next.run(request)).catch_unwind();
    match tokio::time::timeout(limit, answering).await {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(panic)) => Err(answer_to(panic.as_ref())),
        Err(_) => {
            tracing::warn!(
                path,
                limit_ms = limit.as_millis(),
                "a request took too long"
            );
            Err(Problem::unavailable(format!(
                "the answer took longer than {} ms; whether the request took effect is not known",
                limit.as_millis()
            )))
        }
    }
}

fn answer_to(panic: &(dyn Any + Send)) -> Problem {
    let message = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    tracing::error!(message, "a request handler panicked");
    Problem::internal()
}

/// What was asked, for the count and for the explanation of an error.
struct Asked {
    method: Method,
    path: String,
    /// Whether a person looks, with a browser: an error is then a page.
    by_person: bool,
    /// The template, not the path: paths hold ids, and every id would be a series of its own.
    route: Option<MatchedPath>,
    begun: Instant,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            by_person: pages::is_person(request.headers()),
            route: request.extensions().get().cloned(),
            begun: Instant::now(),
        }
    }

    /// `trace` is the request's if it is recorded.
    fn count(&self, status: StatusCode, trace: Option<&TraceContext>) {
        let outcome = match status.as_u16() {
            100..=199 => "INFORMATIONAL",
            200..=299 => "SUCCESS",
            300..=399 => "REDIRECTION",
            400..=499 => "CLIENT_ERROR",
            _ => "SERVER_ERROR",
        };
        let route = self.route.as_ref().map_or("UNKNOWN", MatchedPath::as_str);
        let (method, seconds) = (
            known_method(self.method.as_str()),
            self.begun.elapsed().as_secs_f64(),
        );
        metrics::histogram!(
            HTTP_REQUESTS,
            "method" => method,
            "uri" => route.to_owned(),
            "status" => status.as_str().to_owned(),
            "outcome" => outcome,
        )
        .record(seconds);
        if let Some(trace) = trace {
            let labels = [
                ("method", method),
                ("uri", route),
                ("status", status.as_str()),
                ("outcome", outcome),
            ];
            exemplars::keep(HTTP_REQUESTS, &labels, seconds, trace, SystemTime::now());
        }
    }
}

/// A method may be any token: only the usual ones become a label.
fn known_method(method: &str) -> &'static str {
    ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|known| *known == method)
        .unwrap_or("OTHER")
}

/// Gives errors that the framework answers with an empty body (no route, wrong method) the shape of all others.
fn explained(response: Response, asked: &Asked) -> Response {
    let status = response.status();
    let bare = (status.is_client_error() || status.is_server_error())
        && !response.headers().contains_key(header::CONTENT_TYPE)
        && response.body().is_end_stream();
    if !bare {
        return response;
    }
    let Asked {
        path,
        method,
        by_person,
        ..
    } = asked;
    let problem = Problem::new(status).with_instance(path.as_str());
    let problem = match status {
        StatusCode::NOT_FOUND => problem.with_detail(format!("there is nothing at {path}")),
        // The router adds the header `Allow` outside of the middleware.
        StatusCode::METHOD_NOT_ALLOWED => problem.with_detail(format!(
            "{path} does not take {method}; the header Allow lists what it takes"
        )),
        _ => problem,
    };
    let mut explained = if *by_person {
        pages::explained(&problem)
    } else {
        problem.into_response()
    };
    explained
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    for (name, value) in response.headers() {
        if name != header::CONTENT_LENGTH {
            explained.headers_mut().insert(name, value.clone());
        }
    }
    explained
}

/// The caller's trace, if there is one.
fn trace_of_caller(request: &Request) -> Option<TraceContext> {
    let value = request.headers().get(TRACEPARENT)?;
    value.to_str().ok()?.parse().ok()
}

/// What is recorded of the request, by OpenTelemetry's conventions for HTTP servers.
fn recorded(request: &Request, asked: &Asked) -> Span {
    if !span::is_recording() {
        return Span::none();
    }
    let method = known_method(asked.method.as_str());
    let route = asked.route.as_ref().map(MatchedPath::as_str);
    let name = match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    let mut span = Span::of_request(name, trace_of_caller(request).as_ref());
    if span.is_recorded() {
        span.set("http.request.method", method);
        span.set("url.path", asked.path.clone());
        span.set("url.scheme", "http");
        if let Some(route) = route {
            span.set("http.route", route.to_owned());
        }
        let id = request.headers().get(&REQUEST_ID);
        if let Some(id) = id.and_then(|id| id.to_str().ok()) {
            span.set("tandem.request_id", id.to_owned());
        }
    }
    span
}

fn answered(span: &mut Span, status: StatusCode) {
    if !span.is_recorded() {
        return;
    }
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        span.set("error.type", status.as_str().to_owned());
        span.fail("");
    }
}

/// Continues the caller's trace, or starts one: it becomes the request's extension. The span gives it to every log line within.
fn continue_trace(
    request: &mut Request,
    recorded: Option<TraceContext>,
) -> (TraceContext, tracing::Span) {
    let context = recorded.unwrap_or_else(|| {
        trace_of_caller(request).map_or_else(TraceContext::generate, |caller| caller.child())
    });
    request.extensions_mut().insert(context);
    let span = tracing::info_span!(
        "request",
        method = %request.method(),
        path = request.uri().path(),
        trace_id = %context.trace_id(),
        request_id = tracing::field::Empty,
    );
    if let Some(id) = request
        .headers()
        .get("x-request-id")
        .and_then(|value| value.to_str().ok())
    {
        span.record("request_id", id);
    }
    (context, span)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::Extension;
    use axum::body::Body;
    use axum::http::request::Builder;
    use axum::routing::{get, post};
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::MetricsHandle;
    use tandem_runtime::trace_context::TraceContext;

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
            .route("/slow", get(std::future::pending::<()>))
            .route("/graphql", post(std::future::pending::<()>));
        let settings = HttpSettings {
            request_timeout: Duration::from_millis(20),
            max_body: 10,
            ..HttpSettings::default()
        };
        with_middleware(routes, &settings)
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
    async fn what_is_not_there_is_a_page_for_a_person_and_a_problem_for_a_program() {
        for (method, path, status) in [("GET", "/<b>nowhere</b>", 404), ("GET", "/echo", 405)] {
            let path = path.replace('<', "%3C").replace('>', "%3E");
            let by = |accept: &str| {
                let request = Request::builder().method(method).uri(&path);
                request.header(header::ACCEPT, accept)
            };
            let (response, page) = ask(by("text/html,*/*;q=0.8"), Body::empty()).await;
            assert_eq!(response.status(), status);
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "text/html; charset=utf-8"
            );
            assert!(page.contains(&path) && !page.contains("<b>"), "{page}");
            assert!(response.headers().contains_key(REQUEST_ID));
            let (response, problem) = problem(by("*/*"), Body::empty()).await;
            assert_eq!(
                (response.status(), problem.status),
                (StatusCode::from_u16(status).unwrap(), status)
            );
        }
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
    async fn under_the_graphql_path_refusals_have_graphqls_form() {
        let too_large = Request::post("/graphql").header(header::CONTENT_LENGTH, "11");
        for (request, body, status, code) in [
            (Request::post("/graphql"), "", 503, "UNAVAILABLE"),
            (too_large, "01234567890", 413, "BAD_USER_INPUT"),
        ] {
            let (response, body) = ask(request, body).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["errors"][0]["extensions"]["code"], code, "{body}");
            let message = body["errors"][0]["message"].as_str().unwrap();
            assert!(
                message.contains("20 ms") || message.contains("10 bytes"),
                "{body}"
            );
        }
    }

    #[tokio::test]
    async fn work_on_an_answer_that_comes_too_late_is_stopped() {
        let (alive, stopped) = tokio::sync::oneshot::channel::<()>();
        let alive = std::sync::Arc::new(std::sync::Mutex::new(Some(alive)));
        let work = move || async move {
            let _alive = alive.lock().unwrap().take();
            std::future::pending::<()>().await;
        };
        let settings = HttpSettings {
            request_timeout: Duration::from_millis(20),
            ..HttpSettings::default()
        };
        let app = with_middleware(Router::new().route("/graphql", post(work)), &settings);
        let request = Request::post("/graphql").body(Body::empty()).unwrap();
        let response = app.oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        stopped.await.unwrap_err();
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
}
