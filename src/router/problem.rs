//! Errors of the REST routes: problem details in JSON (RFC 9457), or a page for browsers.

use hive_router::ntex::http::{StatusCode, header};
use hive_router::ntex::web::{HttpRequest, HttpResponse};
use serde_json::json;

use super::pages;

/// A problem about the request at `path`. `detail` says what happened and what would be right.
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

/// The response on a path that nothing serves.
pub(super) async fn no_such_route(request: HttpRequest) -> HttpResponse {
    refusal(
        StatusCode::NOT_FOUND,
        &request,
        "Nothing is served here: GraphQL is at /graphql, the REST routes are under /accounts, /orders and /actuator.",
    )
}

/// A page for a browser, a problem for a program.
fn refusal(status: StatusCode, request: &HttpRequest, detail: &str) -> HttpResponse {
    if pages::is_person(request.headers()) {
        return pages::explained(status, detail);
    }
    let mut response = problem(status, request.path(), detail);
    response
        .headers_mut()
        .insert(header::VARY, header::HeaderValue::from_static("accept"));
    response
}

/// The response to a method that a route does not have.
pub(super) fn method_not_allowed(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let detail = format!("This route takes {allowed} only.");
    let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, request, &detail);
    response
        .headers_mut()
        .insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}
