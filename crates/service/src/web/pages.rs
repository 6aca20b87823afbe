//! Pages of a service for browsers: the start page, GraphiQL's files, the page of the topics, and readable errors.

use axum::{
    Json, Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::json;
use tandem_web::{
    ASYNCAPI_FILES, ASYNCAPI_PAGE, ASYNCAPI_PATH, Explanation, File, GRAPHIQL_FILES,
    GRAPHIQL_POLICY, Graph, HTML, PAGE_FILES, PAGE_POLICY, SERVICE_LINKS, prefers_html,
};

use super::problem::Problem;

/// Routes of the start page (`/`), the page of the topics, and the files of all pages. The GraphQL endpoint serves
/// GraphiQL itself.
pub fn router<S>(graph: Graph) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let first = get(async move |headers: HeaderMap| first(graph, &headers));
    let topics = get(async || page(StatusCode::OK, PAGE_POLICY, ASYNCAPI_PAGE.to_owned()));
    let files = GRAPHIQL_FILES.into_iter().chain(PAGE_FILES);
    files.chain(ASYNCAPI_FILES).fold(
        Router::new().route("/", first).route(ASYNCAPI_PATH, topics),
        |router, held| {
            router.route(
                held.path,
                get(async move |headers: HeaderMap| file(held, &headers)),
            )
        },
    )
}

/// Whether the request comes from a browser.
pub fn is_person(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(prefers_html)
}

/// GraphiQL for this graph.
pub fn graphiql(graph: Graph) -> Response {
    page(StatusCode::OK, GRAPHIQL_POLICY, tandem_web::graphiql(graph))
}

/// A problem as a page.
pub fn explained(problem: &Problem) -> Response {
    let detail = problem.detail.as_deref().unwrap_or_default();
    let told = Explanation::of_status(problem.status, &problem.title, detail, &SERVICE_LINKS);
    page(problem.status_code(), PAGE_POLICY, told.page())
}

fn page(status: StatusCode, policy: &'static str, content: String) -> Response {
    (status, headers(HTML, policy), content).into_response()
}

fn headers(content_type: &'static str, policy: &'static str) -> [(HeaderName, HeaderValue); 6] {
    [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "accept"),
    ]
    .map(|(name, value)| (name, HeaderValue::from_static(value)))
}

fn first(graph: Graph, headers: &HeaderMap) -> Response {
    if is_person(headers) {
        let told = Explanation::of_service(graph);
        return page(StatusCode::OK, PAGE_POLICY, told.page());
    }
    let link = |path: &str| json!({"href": path});
    let links = json!({
        "name": graph.name(),
        "_links": {
            "self": link("/"),
            "graphql": link("/graphql"),
            "openapi": link(super::openapi::API_DOCS_PATH),
            "asyncapi": link("/asyncapi.json"),
            "actuator": link("/actuator"),
            "health": link("/actuator/health"),
        },
    });
    ([(header::VARY, "accept")], Json(links)).into_response()
}

/// Serves a file. A browser that has this version already gets 304 Not Modified.
fn file(held: File, headers: &HeaderMap) -> Response {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .is_some_and(|known| known.as_bytes() == held.tag().as_bytes());
    let about = [
        (header::CONTENT_TYPE, held.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::ETAG, held.tag()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, about).into_response()
    } else {
        (about, held.content).into_response()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::{body::Body, http::Request};
    use tower::ServiceExt;

    use super::*;

    const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

    async fn ask(method: &str, path: &str, accept: &str) -> (Response<()>, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("accept", accept)
            .body(Body::empty())
            .unwrap();
        let response = router::<()>(Graph::Accounts)
            .oneshot(request)
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        (Response::from_parts(parts, ()), text)
    }

    #[tokio::test]
    async fn the_first_page_is_html_for_a_person_and_json_for_a_program() {
        let (response, page) = ask("GET", "/", BROWSER).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], HTML);
        assert!(page.contains("href=\"/graphql\""), "{page}");
        let (response, json) = ask("GET", "/", "*/*").await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        assert!(
            json.contains("\"graphql\":{\"href\":\"/graphql\"}"),
            "{json}"
        );
        let (response, nothing) = ask("HEAD", "/", BROWSER).await;
        assert_eq!((response.status(), nothing.as_str()), (StatusCode::OK, ""));
    }

    #[tokio::test]
    async fn the_topics_are_told_to_a_person_and_to_a_program() {
        let (response, page) = ask("GET", ASYNCAPI_PATH, BROWSER).await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], HTML);
        assert!(page.contains("/asyncapi.json"), "{page}");
        let (response, document) = ask("GET", "/asyncapi.json", "*/*").await;
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        assert_eq!(document["asyncapi"], "3.0.0");
    }

    #[tokio::test]
    async fn every_file_that_the_pages_name_is_served_and_known_again() {
        for page in [
            tandem_web::graphiql(Graph::Accounts),
            Explanation::of_service(Graph::Accounts).page(),
            ASYNCAPI_PAGE.to_owned(),
        ] {
            let files: Vec<String> = page
                .split('"')
                .filter(|text| text.contains("/ui/"))
                .map(|text| format!("/{}", text.trim_start_matches('/')))
                .collect();
            assert!(!files.is_empty());
            for path in files {
                let (response, content) = ask("GET", &path, "*/*").await;
                assert_eq!(response.status(), StatusCode::OK, "{path}");
                assert!(!content.is_empty());
                let request = Request::get(&path)
                    .header("if-none-match", &response.headers()[header::ETAG])
                    .body(Body::empty())
                    .unwrap();
                let again = router::<()>(Graph::Accounts).oneshot(request).await;
                assert_eq!(again.unwrap().status(), StatusCode::NOT_MODIFIED);
            }
        }
    }
}
