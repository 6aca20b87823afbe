//! GraphiQL for a browser at GET /graphql: built from `web/graphiql`, held in the binary, no address outside of this port.
//!
//! Its files are below /graphql, so that an ingress that lets this path through lets the page work.

use hive_router::ntex::http::{Method, header};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};

const PAGE: &str = include_str!("../../web/graphiql/index.html");
const FILES: [(&str, &str, &str); 4] = [
    (
        "/graphql/ui/libraries.js",
        "text/javascript; charset=utf-8",
        include_str!("../../web/graphiql/dist/libraries.js"),
    ),
    (
        "/graphql/ui/graphiql.js",
        "text/javascript; charset=utf-8",
        include_str!("../../web/graphiql/dist/graphiql.js"),
    ),
    (
        "/graphql/ui/graphiql.css",
        "text/css; charset=utf-8",
        include_str!("../../web/graphiql/dist/graphiql.css"),
    ),
    (
        "/graphql/ui/LICENSES.txt",
        "text/plain; charset=utf-8",
        include_str!("../../web/graphiql/dist/LICENSES.txt"),
    ),
];

/// Only this origin: a page that would load anything from elsewhere breaks at once instead of quietly needing the internet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the page at the GraphQL path, for those who accept HTML, and its files.
pub(super) fn routes(app: &mut ServiceConfig, graphql_path: &str) {
    app.service(
        web::resource(graphql_path)
            .guard(web::guard::fn_guard(|head| {
                head.method == Method::GET
                    && !head.headers().contains_key(header::UPGRADE)
                    && head
                        .headers()
                        .get(header::ACCEPT)
                        .and_then(|accept| accept.to_str().ok())
                        .is_some_and(|accept| accept.contains("text/html"))
            }))
            .route(web::to(page)),
    );
    for (path, content_type, content) in FILES {
        app.service(web::resource(path).route(
            web::get().to(async move |request: HttpRequest| file(&request, content_type, content)),
        ));
    }
}

async fn page() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(PAGE)
}

/// A file of the page; a browser that has this version's file is told so.
fn file(request: &HttpRequest, content_type: &str, content: &'static str) -> HttpResponse {
    let tag = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    let tag = format!("{}-{:x}\"", tag.trim_end_matches('"'), content.len());
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if known {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .content_type(content_type)
        .header(header::CACHE_CONTROL, "no-cache")
        .header(header::ETAG, tag)
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if known {
        response.finish()
    } else {
        response.body(content)
    }
}
