//! The middleware of every route: request id, trace, count, limits, and an explanation for errors that the framework or
//! a panic leaves without one.
//!
//! It is one function. As separate layers, each would cost every request a copy of everything that it wraps.

mod asked_request;
mod error_response;
mod limits;
mod request_id;
mod request_metrics;
mod request_trace;

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tower::ServiceBuilder;
use tracing::Instrument;

pub use request_id::REQUEST_ID;

use asked_request::Asked;
use error_response::{explained, in_form_of};
use limits::{answer_in_time, refusal_by_length};
use request_id::name;
use request_trace::{answered, continue_trace, recorded};

use super::http_settings::HttpSettings;
use super::legacy::Sunset;
use super::unread::read_on;

/// How many bodies of the largest size are read and discarded, so that the sender gets to read the refusal. See
/// [`super::unread`].
const READ_ON: usize = 16;

/// Wraps a router in this middleware.
pub fn with_middleware(router: Router, settings: &HttpSettings) -> Router {
    let limits = Limits {
        time: settings.request_timeout,
        body: settings.max_body,
        sunset: settings.rest_sunset.clone(),
        scheme: scheme(settings),
    };
    router.layer(
        ServiceBuilder::new()
            .layer(middleware::from_fn_with_state(limits, attend))
            .layer(DefaultBodyLimit::max(settings.max_body)),
    )
}

#[derive(Clone, Debug)]
struct Limits {
    /// The time limit until an answer begins.
    time: Duration,
    /// The largest body, in bytes.
    body: usize,
    /// When the routes for older clients end.
    sunset: Option<Sunset>,
    /// The scheme of the port.
    scheme: &'static str,
}

/// The scheme of the port's URLs.
fn scheme(settings: &HttpSettings) -> &'static str {
    match settings.tls.tls_certificate {
        Some(_) => "https",
        None => "http",
    }
}

/// Handles a request from its arrival to the beginning of its answer.
async fn attend(State(limits): State<Limits>, mut request: Request, next: Next) -> Response {
    let id = name(&mut request);
    let asked = Asked::of(&request);
    let mut recorded = recorded(&request, &asked, limits.scheme);
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
        sunset.add_to(response.headers_mut());
    }
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::Extension;
    use axum::body::Body;
    use axum::http::request::Builder;
    use axum::http::{StatusCode, header};
    use axum::routing::{get, post};
    use tower::ServiceExt;

    use super::*;
    use crate::telemetry::MetricsHandle;
    use crate::web::problem::Problem;
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

    #[test]
    fn what_is_recorded_of_a_request_has_the_scheme_that_the_port_speaks() {
        let mut settings = HttpSettings::default();
        assert_eq!(scheme(&settings), "http");
        settings.tls.tls_certificate = Some("certificate.pem".into());
        assert_eq!(scheme(&settings), "https");
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
