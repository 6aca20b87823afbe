//! Errors of the REST routes as JSON problems (RFC 9457).

use hive_router::ntex::http::StatusCode;
use hive_router::ntex::web::{HttpRequest, HttpResponse};
use serde_json::json;

/// A problem about the request at `path`; `detail` says what happened and what would be right.
pub(super) fn problem(status: StatusCode, path: &str, detail: &str) -> HttpResponse {
    let body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail,
        "instance": path,
    });
    HttpResponse::build(status)
        .content_type("application/problem+json")
        .body(body.to_string())
}

/// The answer on a path that nothing serves.
pub(super) async fn no_such_route(request: HttpRequest) -> HttpResponse {
    problem(
        StatusCode::NOT_FOUND,
        request.path(),
        "Nothing is served here: GraphQL is at /graphql, the REST routes are under /accounts, /orders and /actuator.",
    )
}

/// The answer to a method that a route does not have.
pub(super) fn method_not_allowed(path: &str, allowed: &'static str) -> HttpResponse {
    let mut response = problem(
        StatusCode::METHOD_NOT_ALLOWED,
        path,
        &format!("This route takes {allowed} only."),
    );
    response.headers_mut().insert(
        hive_router::ntex::http::header::ALLOW,
        hive_router::ntex::http::header::HeaderValue::from_static(allowed),
    );
    response
}
