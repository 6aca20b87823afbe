//! The router's second guard: it executes only operations that the front door has judged. The front door passes an
//! operation on with its kind ([`OperationKind`]). A request without a kind is refused on every path and with every
//! method, even if the front door had a fault.

use hive_router::ntex::http::RequestHead;
use hive_router::ntex::web::{self, ServiceConfig};
use tandem_front_door::graphql::OperationKind;

use super::problem::no_such_route;

/// Answers every request that the router's own routes would accept as GraphQL, unless the front door has judged it.
/// Must be added before those routes and use the same paths.
pub(super) fn routes(app: &mut ServiceConfig, graphql: &str, websocket: Option<&str>) {
    if let Some(websocket) = websocket {
        app.service(
            web::resource(websocket)
                .guard(is_not_judged)
                .route(web::to(no_such_route)),
        );
    }
    app.service(
        web::resource(graphql)
            .guard(is_not_judged)
            .route(web::to(no_such_route)),
    );
    if graphql != "/" {
        app.service(
            web::scope(graphql)
                .guard(is_not_judged)
                .default_service(web::to(no_such_route)),
        );
    }
}

fn is_not_judged(head: &RequestHead) -> bool {
    !head.extensions().contains::<OperationKind>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::body::Body;
    use axum::http::{Method, Request, header};
    use hive_router::ntex::SharedCfg;
    use hive_router::ntex::rt::{DefaultRuntime, System};
    use hive_router::ntex::web::WebAppConfig;
    use hive_router::{RouterPaths, configure_ntex_app};
    use tower::Service;

    use super::*;
    use crate::router::in_process::InProcess;
    use crate::router::methods::Methods;

    /// The status of each response. The router's own routes lack their state here, so an operation fails with 500.
    fn statuses(requests: Vec<Request<Body>>) -> Vec<u16> {
        let answering = async move {
            let socket = "/graphql/ws";
            let paths = RouterPaths::new("/graphql".to_owned(), Some(socket.to_owned()), None);
            let application = web::App::new()
                .middleware(Methods {
                    graphql_path: paths.graphql.clone(),
                })
                .configure(|app| routes(app, &paths.graphql, Some(socket)))
                .configure(|app| configure_ntex_app(app, &paths, None))
                .default_service(web::to(no_such_route));
            let settings = SharedCfg::new("gateway").add(WebAppConfig::new());
            let mut router = InProcess::new(application, settings.into(), None)
                .await
                .unwrap();
            let mut statuses = Vec::new();
            for request in requests {
                let answer = router.call(request).await.unwrap();
                statuses.push(answer.status().as_u16());
            }
            statuses
        };
        System::build()
            .name("test")
            .disable_signals()
            .build(DefaultRuntime)
            .block_on(answering)
    }

    fn request(method: Method, path: &str, kind: Option<OperationKind>) -> Request<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(r#"{"query":"{__typename}"}"#))
            .unwrap();
        if let Some(kind) = kind {
            request.extensions_mut().insert(kind);
        }
        request
    }

    #[test]
    fn the_router_carries_nothing_out_that_the_front_door_has_not_judged_whatever_the_path() {
        let mut requests = Vec::new();
        for path in [
            "/graphql",
            "/graphql?query=%7B__typename%7D",
            "/graphql/",
            "/graphql//",
            "/graphql/ws",
            "/graphql/sha256:1234",
            "/%67raphql",
            "/graphq%6C/x",
        ] {
            for method in [Method::GET, Method::POST, Method::PUT] {
                requests.push(request(method, path, None));
            }
        }
        let mut socket = request(Method::GET, "/graphql/ws", None);
        let upgrade = header::HeaderValue::from_static("websocket");
        socket.headers_mut().insert(header::UPGRADE, upgrade);
        requests.push(socket);
        let count = requests.len();
        requests.push(request(
            Method::POST,
            "/graphql",
            Some(OperationKind::Query),
        ));
        let statuses = statuses(requests);
        assert_eq!(statuses[..count], vec![404; count][..]);
        // A judged request reaches the router's own route.
        assert_eq!(statuses[count], 500);
    }
}
