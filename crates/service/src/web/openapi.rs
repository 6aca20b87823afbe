//! The OpenAPI document of a service, and a page to read and try it. The page is vendored, so a browser loads nothing
//! from other hosts.

use std::sync::Arc;

use axum::response::Redirect;
use axum::routing::get;
use axum::{Json, Router};
use tandem_model::json::in_order_of_name;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::SwaggerUi;

/// The path of the document, the same as in springdoc.
pub const API_DOCS_PATH: &str = "/v3/api-docs";

/// Routes for the document (`/v3/api-docs`, `/openapi.json`) and for Swagger UI (`/swagger-ui`, `/swagger-ui.html`).
pub fn router<S>(document: OpenApi) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let shared = Arc::new(document.clone());
    let page: Router<S> = SwaggerUi::new("/swagger-ui")
        .url(API_DOCS_PATH, document)
        .into();
    page.route(
        "/openapi.json",
        get(move || async move { Json(shared.clone()) }),
    )
    .route(
        "/swagger-ui.html",
        get(|| async { Redirect::to("/swagger-ui/index.html") }),
    )
}

/// The document as it is committed in schema/openapi: indented, with the members of objects sorted by name, whatever
/// order the build's serde_json keeps.
///
/// # Errors
/// If it cannot be written as JSON, which does not happen in practice.
pub fn committed(document: &OpenApi) -> Result<String, serde_json::Error> {
    let value = in_order_of_name(serde_json::to_value(document)?);
    Ok(format!("{value:#}\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::body::Body;
    use axum::http::{Request, StatusCode, header};
    use tower::ServiceExt;
    use utoipa::OpenApi as _;

    #[derive(utoipa::OpenApi)]
    #[openapi(info(title = "Sample", version = "1"))]
    struct Sample;

    async fn fetch(path: &str) -> (StatusCode, Option<String>, String) {
        let response = super::router::<()>(Sample::openapi())
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap();
        let status = response.status();
        let location = response
            .headers()
            .get(header::LOCATION)
            .map(|value| value.to_str().unwrap().to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap();
        (
            status,
            location,
            String::from_utf8_lossy(&body).into_owned(),
        )
    }

    #[tokio::test]
    async fn the_document_is_openapi_3_1_under_both_names() {
        for path in ["/v3/api-docs", "/openapi.json"] {
            let (status, _, body) = fetch(path).await;
            assert_eq!(status, StatusCode::OK);
            let json: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert!(json["openapi"].as_str().unwrap().starts_with("3.1"));
        }
    }

    #[tokio::test]
    async fn the_page_is_served_without_loading_anything_from_elsewhere() {
        let (status, location, _) = fetch("/swagger-ui.html").await;
        assert_eq!(status, StatusCode::SEE_OTHER);
        let (status, _, page) = fetch(&location.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("swagger-ui"));
        assert!(
            !page.contains("http://") && !page.contains("https://"),
            "{page}"
        );
        let (status, _, initializer) = fetch("/swagger-ui/swagger-initializer.js").await;
        assert_eq!(status, StatusCode::OK);
        assert!(initializer.contains("/v3/api-docs"), "{initializer}");
    }
}
