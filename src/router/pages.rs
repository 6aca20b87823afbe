//! What the gateway serves to browsers: the start page at `/`, GraphiQL at the GraphQL path, and their files (`web/`).

use hive_router::ntex::http::{HeaderMap, Method, StatusCode, header};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig, guard};
use serde_json::json;
use tandem_web::{
    Explanation, File, GATEWAY_LINKS, GRAPHIQL_FILES, GRAPHIQL_POLICY, Graph, HTML, LIVE_FILES,
    OPERATIONS_FILES, PAGE_FILES, PAGE_POLICY, START_FILES, START_PAGE, graphiql, prefers_html,
};

use super::system::System;

/// Adds the pages, for clients that accept HTML, and their files.
pub(super) fn routes(app: &mut ServiceConfig, graphql_path: &str) {
    app.service(
        web::resource(graphql_path)
            .guard(guard::fn_guard(|head| {
                (head.method == Method::GET || head.method == Method::HEAD)
                    && !head.headers().contains_key(header::UPGRADE)
                    && is_person(head.headers())
            }))
            .route(web::to(async || {
                page(StatusCode::OK, GRAPHIQL_POLICY, graphiql(Graph::Gateway))
            })),
    );
    app.service(web::resource("/").route(read().to(start)));
    app.service(web::resource("/ui/status.json").route(read().to(status)));
    for held in GRAPHIQL_FILES
        .into_iter()
        .chain(PAGE_FILES)
        .chain(START_FILES)
        .chain(LIVE_FILES)
        .chain(OPERATIONS_FILES)
    {
        app.service(
            web::resource(held.path)
                .route(read().to(async move |request: HttpRequest| file(&request, held))),
        );
    }
}

/// Whether the request comes from a browser.
pub(super) fn is_person(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(prefers_html)
}

/// A page that explains why a request was not answered.
pub(super) fn explained(status: StatusCode, detail: &str) -> HttpResponse {
    let title = status.canonical_reason().unwrap_or("Error");
    let told = Explanation::of_status(status.as_u16(), title, detail, &GATEWAY_LINKS);
    page(status, PAGE_POLICY, told.page())
}

/// A route for GET and HEAD.
pub(super) fn read() -> web::Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

pub(super) fn page(status: StatusCode, policy: &str, content: String) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(HTML)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::CONTENT_SECURITY_POLICY, policy)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::REFERRER_POLICY, "no-referrer")
        .header(header::VARY, "accept")
        .body(content)
}

/// The start page. A program gets the addresses that the page links to.
async fn start(request: HttpRequest) -> HttpResponse {
    if is_person(request.headers()) {
        return page(StatusCode::OK, PAGE_POLICY, START_PAGE.to_owned());
    }
    let link = |path: &str| json!({ "href": path });
    let links = json!({
        "name": "gateway",
        "version": env!("CARGO_PKG_VERSION"),
        "_links": {
            "self": link("/"),
            "graphql": link("/graphql"),
            "live": link("/live"),
            "operations": link("/operations"),
            "actuator": link("/actuator"),
            "health": link("/actuator/health"),
        },
    });
    HttpResponse::Ok()
        .content_type("application/json")
        .header(header::VARY, "accept")
        .body(links.to_string())
}

/// The state of the running system, for the start page.
async fn status(system: web::types::State<System>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(system.report().await.to_string())
}

/// A file of a page. Answers 304 if the browser has this version of the file.
fn file(request: &HttpRequest, held: File) -> HttpResponse {
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == held.tag().as_bytes());
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .content_type(held.content_type)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::ETAG, held.tag())
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if known {
        response.finish()
    } else {
        response.body(held.content)
    }
}
