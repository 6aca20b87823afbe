//! Health, info and metrics in the shapes of Spring Boot Actuator, so that probes and dashboards made for it work.
//!
//! Readiness says whether to send requests to this instance. Liveness says whether a restart would help. It never
//! depends on a store or on Kafka, because a restart of this process does not bring those back.

mod health;
pub mod measurements;
mod process_metrics;
mod prometheus_text;

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Value, json};

pub use health::{
    Affects, CHECK_TIMEOUT, ComponentHealth, Health, HealthReport, HealthReporter, Status,
};
pub use process_metrics::record_process;

use super::open_metrics;
use super::problem::Problem;
use crate::telemetry::MetricsHandle;

/// What the actuator routes of a service read.
#[derive(Debug, Clone)]
pub struct Actuator {
    health: Health,
    metrics: MetricsHandle,
    info: Arc<Value>,
    started: Instant,
}

impl Actuator {
    /// `info` is the answer of `/actuator/info`: name, version, and the like.
    #[expect(clippy::disallowed_methods, reason = "it measures and decides nothing")]
    pub fn new(health: Health, metrics: MetricsHandle, info: Value) -> Self {
        Self {
            health,
            metrics,
            info: Arc::new(info),
            started: Instant::now(),
        }
    }

    /// The routes under `/actuator`.
    pub fn router<S>(self) -> Router<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        Router::new()
            .route("/actuator", get(links))
            .route("/actuator/health", get(health))
            .route("/actuator/health/liveness", get(liveness))
            .route("/actuator/health/readiness", get(readiness))
            .route("/actuator/info", get(info))
            .route("/actuator/metrics", get(metric_names))
            .route("/actuator/metrics/{name}", get(metric))
            .route("/actuator/prometheus", get(prometheus))
            .with_state(self)
    }

    fn rendered(&self) -> String {
        record_process(self.started);
        self.metrics.render()
    }
}

async fn links() -> ActuatorJson<Value> {
    let link = |path: &str| json!({"href": path, "templated": path.contains('{')});
    ActuatorJson(json!({"_links": {
        "self": link("/actuator"),
        "health": link("/actuator/health"),
        "health-path": link("/actuator/health/{*path}"),
        "info": link("/actuator/info"),
        "metrics": link("/actuator/metrics"),
        "metrics-requiredMetricName": link("/actuator/metrics/{requiredMetricName}"),
        "prometheus": link("/actuator/prometheus"),
    }}))
}

async fn health(State(actuator): State<Actuator>) -> Response {
    answer(actuator.health.report().await)
}

async fn readiness(State(actuator): State<Actuator>) -> Response {
    answer(actuator.health.readiness().await)
}

async fn liveness() -> ActuatorJson<Value> {
    ActuatorJson(json!({"status": Status::Up}))
}

fn answer(report: HealthReport) -> Response {
    let status = match report.status {
        Status::Up | Status::Degraded => StatusCode::OK,
        Status::OutOfService | Status::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, ActuatorJson(report)).into_response()
}

async fn info(State(actuator): State<Actuator>) -> ActuatorJson<Value> {
    ActuatorJson(actuator.info.as_ref().clone())
}

async fn prometheus(State(actuator): State<Actuator>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let text = actuator.rendered();
    let (kind, text) = if accept.is_some_and(open_metrics::is_accepted) {
        (open_metrics::CONTENT_TYPE, open_metrics::of_text(&text))
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", text)
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn metric_names(State(actuator): State<Actuator>) -> ActuatorJson<Value> {
    let names = measurements::names(&actuator.rendered());
    ActuatorJson(json!({"names": names}))
}

async fn metric(
    State(actuator): State<Actuator>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<ActuatorJson<Value>, Problem> {
    let Some(measured) = measurements::of(&actuator.rendered(), &name, &query) else {
        return Err(Problem::not_found(format!(
            "there is no metric `{name}` with these tags; /actuator/metrics lists them"
        ))
        .with_instance(format!("/actuator/metrics/{name}")));
    };
    Ok(ActuatorJson(measured))
}

/// JSON with the media type of Spring Boot's actuator.
struct ActuatorJson<T>(T);

/// The media type that Spring Boot 2.2 and later use.
const MEDIA_TYPE: &str = "application/vnd.spring-boot.actuator.v3+json";

impl<T: Serialize> IntoResponse for ActuatorJson<T> {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, MEDIA_TYPE)], Json(self.0)).into_response()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use tandem_runtime::shutdown::Shutdown;

    use super::*;

    struct Setup {
        shutdown: Shutdown,
        health: Health,
        router: Router,
        recorder: metrics_exporter_prometheus::PrometheusRecorder,
    }

    fn setup() -> Setup {
        let shutdown = Shutdown::new();
        let health = Health::new(&shutdown);
        let (recorder, metrics) = MetricsHandle::detached("accounts").unwrap();
        let info = json!({"app": {"name": "accounts"}});
        Setup {
            router: Actuator::new(health.clone(), metrics, info).router(),
            shutdown,
            health,
            recorder,
        }
    }

    impl Setup {
        async fn text(&self, path: &str) -> (u16, String) {
            let response = self
                .router
                .clone()
                .oneshot(Request::get(path).body(Body::empty()).unwrap())
                .await
                .unwrap();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX)
                .await
                .unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }

        async fn json(&self, path: &str) -> (u16, Value) {
            let (status, text) = self.text(path).await;
            (status, serde_json::from_str(&text).expect(&text))
        }
    }

    #[tokio::test]
    async fn a_service_without_components_is_up() {
        let setup = setup();
        let (status, body) = setup.json("/actuator/health").await;
        assert_eq!((status, &body["status"]), (200, &json!("UP")));
    }

    #[tokio::test]
    async fn a_component_that_is_down_takes_health_and_readiness_with_it_but_not_liveness() {
        let setup = setup();
        let store = setup.health.reporter("store", Affects::Readiness);
        store.up();
        assert_eq!(setup.json("/actuator/health/readiness").await.0, 200);
        store.set(ComponentHealth::down("connection refused").with("uri", "localhost"));
        let (status, body) = setup.json("/actuator/health").await;
        assert_eq!(status, 503);
        assert_eq!(body["status"], "DOWN");
        assert_eq!(
            body["components"]["store"],
            json!({"status": "DOWN", "details": {"error": "connection refused", "uri": "localhost"}})
        );
        assert_eq!(setup.json("/actuator/health/readiness").await.0, 503);
        let (status, body) = setup.json("/actuator/health/liveness").await;
        assert_eq!((status, body), (200, json!({"status": "UP"})));
    }

    #[tokio::test]
    async fn a_component_that_requests_can_do_without_degrades_and_takes_nothing_out_of_service() {
        let setup = setup();
        setup
            .health
            .register("kafka", Affects::HealthOnly, || async {
                ComponentHealth::down("no broker")
            });
        let (status, body) = setup.json("/actuator/health").await;
        assert_eq!((status, &body["status"]), (200, &json!("DEGRADED")));
        assert_eq!(body["components"]["kafka"]["status"], "DOWN");
        let (status, body) = setup.json("/actuator/health/readiness").await;
        assert_eq!((status, &body["status"]), (200, &json!("UP")));
    }

    #[tokio::test]
    async fn a_degraded_component_is_seen_and_stays_ready() {
        let setup = setup();
        let outbox = setup.health.reporter("outbox", Affects::Readiness);
        outbox.set(ComponentHealth::degraded("events wait"));
        let (status, body) = setup.json("/actuator/health/readiness").await;
        assert_eq!((status, &body["status"]), (200, &json!("DEGRADED")));
        assert_eq!(
            body["components"]["outbox"]["details"]["reason"],
            "events wait"
        );
    }

    #[tokio::test]
    async fn a_component_that_has_not_reported_yet_is_out_of_service() {
        let setup = setup();
        let _reporter = setup.health.reporter("replica", Affects::Readiness);
        let (status, body) = setup.json("/actuator/health/readiness").await;
        assert_eq!((status, &body["status"]), (503, &json!("OUT_OF_SERVICE")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_check_that_does_not_answer_counts_as_down() {
        let setup = setup();
        setup
            .health
            .register("store", Affects::Readiness, std::future::pending);
        let report = setup.health.report().await;
        assert_eq!(report.status, Status::Down);
        assert_eq!(
            report.components["store"].details["error"],
            "no answer within 2000 ms"
        );
    }

    #[tokio::test]
    async fn readiness_ends_when_shutdown_is_requested() {
        let setup = setup();
        setup.shutdown.request("test");
        assert_eq!(setup.json("/actuator/health/readiness").await.0, 503);
        assert_eq!(setup.json("/actuator/health/liveness").await.0, 200);
    }

    #[tokio::test]
    async fn links_and_info_are_answered() {
        let setup = setup();
        let (_, links) = setup.json("/actuator").await;
        assert_eq!(links["_links"]["health"]["href"], "/actuator/health");
        let (_, info) = setup.json("/actuator/info").await;
        assert_eq!(info["app"]["name"], "accounts");
    }

    #[test]
    fn metrics_are_listed_and_answered_in_the_shapes_of_the_actuator() {
        let setup = setup();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        metrics::with_local_recorder(&setup.recorder, || {
            for status in ["200", "200", "404"] {
                metrics::histogram!("http_server_requests_seconds", "uri" => "/a \"quoted\", one", "status" => status)
                    .record(0.25);
            }
            metrics::counter!("events_published_total").increment(7);
            runtime.block_on(async {
                let (_, listed) = setup.json("/actuator/metrics").await;
                let names = listed["names"].as_array().unwrap();
                for name in ["http.server.requests", "events.published", "process.uptime"] {
                    assert!(names.contains(&json!(name)), "{names:?}");
                }
                let (status, body) = setup.json("/actuator/metrics/http.server.requests").await;
                assert_eq!(status, 200);
                assert_eq!(body["baseUnit"], "seconds");
                assert_eq!(
                    body["measurements"],
                    json!([
                        {"statistic": "COUNT", "value": 3.0},
                        {"statistic": "TOTAL_TIME", "value": 0.75},
                    ])
                );
                let tags = body["availableTags"].as_array().unwrap();
                assert!(tags.contains(&json!({"tag": "status", "values": ["200", "404"]})));
                assert!(tags.contains(&json!({"tag": "uri", "values": ["/a \"quoted\", one"]})));

                let (_, body) = setup
                    .json("/actuator/metrics/http.server.requests?tag=status:404")
                    .await;
                assert_eq!(body["measurements"][0]["value"], 1.0);
                let (_, body) = setup.json("/actuator/metrics/events_published_total").await;
                assert_eq!(
                    body["measurements"],
                    json!([{"statistic": "COUNT", "value": 7.0}])
                );
                for nothing in ["nonsense", "http.server.requests?tag=status:418"] {
                    let path = format!("/actuator/metrics/{nothing}");
                    let (status, problem) = setup.json(&path).await;
                    assert_eq!((status, &problem["status"]), (404, &json!(404)), "{path}");
                }
                let (_, text) = setup.text("/actuator/prometheus").await;
                assert!(text.contains("events_published_total{application=\"accounts\"} 7"));
            });
        });
    }
}
