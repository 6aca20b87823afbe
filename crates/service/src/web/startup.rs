//! Serves from the first moment on, while the service still opens what it needs. A database that is unavailable must
//! not make a live process look dead, because a restart would not bring the database back.
//!
//! Until the routes are ready, the actuator answers, and every other request gets "unavailable".

use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::Body,
    extract::Request,
    response::Response,
    routing::{any, future::RouteFuture},
};
use serde_json::Value;
use tokio::net::TcpListener;
use tower::Service;

use super::graphql_refusal::{self, PATH};
use super::{
    HttpSettings, Problem, ServeError,
    actuator::{Actuator, Affects, Health, HealthReporter},
    middleware::with_middleware,
    serve::{Judge, serve_service},
};
use crate::telemetry::MetricsHandle;
use tandem_runtime::shutdown::Shutdown;

/// The message for requests that come too early.
const TOO_EARLY: &str = "the service is starting and waits for its store; ask again in a moment";

/// Serves the actuator at once, and the router of `open` as soon as it is ready. Ends with shutdown, as
/// [`super::serve()`], or when `open` fails. `open` gets a reporter for the state of the component `store` meanwhile.
/// Until it reports something, the service is not ready because it is starting. `metrics` and `info` are for the
/// actuator, `judge` has the rules for requests.
///
/// # Errors
/// The error of `open`, unless shutdown was requested meanwhile. Also when the listener fails.
pub async fn serve_during_startup<E: From<ServeError>>(
    listener: TcpListener,
    judge: Judge,
    metrics: MetricsHandle,
    info: Value,
    open: impl AsyncFnOnce(HealthReporter) -> Result<Router, E>,
    settings: &HttpSettings,
    shutdown: &Shutdown,
) -> Result<(), E> {
    let health = Health::new(shutdown);
    let waiting = health.reporter("store", Affects::Readiness);
    let actuator = Actuator::new(health, metrics, info);
    let doorway = Doorway {
        early: with_middleware(early(actuator), settings),
        full: Arc::default(),
    };
    let full = Arc::clone(&doorway.full);
    let opening = async {
        let router = match open(waiting).await {
            Ok(router) => router,
            // The shutdown interrupted `open`, which is not a failure.
            Err(_) if shutdown.is_requested() => return pending().await,
            Err(error) => return error,
        };
        // Only this future sets the value, and only once.
        let _ = full.set(with_middleware(router, settings));
        pending().await
    };
    tokio::select! {
        served = serve_service(listener, doorway, judge, settings, shutdown) => Ok(served?),
        error = opening => Err(error),
    }
}

/// The routes while the service is still starting.
fn early(actuator: Actuator) -> Router {
    Router::new()
        .merge(actuator.router())
        .route(PATH, any(graphql_too_early))
        .fallback(too_early)
}

async fn too_early(request: Request) -> Problem {
    Problem::unavailable(TOO_EARLY).with_instance(request.uri().path())
}

/// The answer in the form that a GraphQL client, and the gateway, reads.
async fn graphql_too_early() -> Response {
    graphql_refusal::refused(Problem::unavailable(TOO_EARLY))
}

/// Passes requests to the early routes until the full ones are ready.
#[derive(Clone)]
struct Doorway {
    early: Router,
    full: Arc<OnceLock<Router>>,
}

impl Service<Request<Body>> for Doorway {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let router = self.full.get().unwrap_or(&self.early);
        router.clone().call(request)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::oneshot,
    };

    use serde_json::json;

    use super::*;
    use crate::web::bind;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error(transparent)]
        Serve(#[from] ServeError),
        #[error("it does not open")]
        Open,
    }

    async fn get_once(address: std::net::SocketAddr, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer[9..12].parse().unwrap();
        (status, answer)
    }

    fn metrics() -> MetricsHandle {
        MetricsHandle::detached("test").unwrap().1
    }

    #[tokio::test]
    async fn the_actuator_answers_before_the_routes_are_there_and_then_the_routes() {
        let settings = HttpSettings::default();
        let shutdown = Shutdown::new();
        let listener = bind(settings.host, 0, "--port").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (opened, opening) = oneshot::channel::<()>();
        let stop = shutdown.clone();
        let server = tokio::spawn(async move {
            let open = async |waiting: HealthReporter| {
                waiting.down("away");
                opening.await.unwrap();
                let health = Actuator::new(Health::new(&stop), metrics(), json!({}));
                let routes = Router::new().route("/things/{id}", get(|| async { "a thing" }));
                Ok::<_, Failure>(routes.merge(health.router()))
            };
            let judge = Judge::default();
            serve_during_startup(
                listener,
                judge,
                metrics(),
                json!({}),
                open,
                &settings,
                &stop,
            )
            .await
        });

        assert_eq!(get_once(address, "/actuator/health/liveness").await.0, 200);
        while !get_once(address, "/actuator/health/readiness")
            .await
            .1
            .contains("away")
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(get_once(address, "/actuator/health/readiness").await.0, 503);
        let (status, early) = get_once(address, "/things/1").await;
        assert_eq!(status, 503);
        assert!(early.contains("retry-after: 1") && early.contains("problem+json"));
        let (status, early) = get_once(address, "/graphql?query=%7B__typename%7D").await;
        assert_eq!(status, 503);
        assert!(early.contains("\"code\":\"UNAVAILABLE\""), "{early}");

        opened.send(()).unwrap();
        while get_once(address, "/things/1").await.0 == 503 {
            tokio::task::yield_now().await;
        }
        assert!(get_once(address, "/things/1").await.1.ends_with("a thing"));
        assert_eq!(get_once(address, "/nowhere").await.0, 404);
        assert_eq!(get_once(address, "/actuator/health/readiness").await.0, 200);
        shutdown.request("the test is over");
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_opened_ends_the_service_and_a_shutdown_meanwhile_is_no_failure() {
        let settings = HttpSettings::default();
        let shutdown = Shutdown::new();
        let ends = async |open: &dyn Fn()| {
            let bound = bind(settings.host, 0, "--port").await.unwrap();
            let open = async |_| {
                open();
                Err::<Router, _>(Failure::Open)
            };
            serve_during_startup(
                bound,
                Judge::default(),
                metrics(),
                json!({}),
                open,
                &settings,
                &shutdown,
            )
            .await
        };
        let ended = ends(&|| {}).await;
        assert!(matches!(ended, Err(Failure::Open)), "{ended:?}");
        let ended = ends(&|| shutdown.request("the test is over")).await;
        assert!(ended.is_ok(), "{ended:?}");
    }
}
