//! Health, info and metrics of the gateway itself, in the format of Spring Boot Actuator.
//!
//! A service that is down does not make the gateway unhealthy: it still answers what the other service knows.

use std::sync::Arc;

use hive_router::SchemaState;
use hive_router::ntex::http::StatusCode;
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use prometheus::TextEncoder;
use serde_json::{Value, json};
use tandem_service::web::actuator::measurements;

use super::metrics::Recorded;
use super::problem::problem;

/// The media type that Spring Boot Actuator answers with.
const MEDIA_TYPE: &str = "application/vnd.spring-boot.actuator.v3+json";

/// The sources of the actuator's responses.
#[derive(Clone)]
pub(super) struct Actuator {
    registry: Option<prometheus::Registry>,
    recorded: Recorded,
    schema: Arc<SchemaState>,
}

impl Actuator {
    /// `registry` holds the router's metrics, if it has any. `recorded` holds those of the front door and of our
    /// plugins.
    pub(super) fn new(
        registry: Option<prometheus::Registry>,
        recorded: Recorded,
        schema: Arc<SchemaState>,
    ) -> Self {
        Self {
            registry,
            recorded,
            schema,
        }
    }

    /// All metrics in the text format of Prometheus. Both libraries' metrics are rendered the way the services do it.
    fn rendered(&self) -> String {
        let families = self
            .registry
            .as_ref()
            .map(prometheus::Registry::gather)
            .unwrap_or_default();
        let encoder = TextEncoder::new();
        let mut text = String::new();
        for family in families {
            // A metric that cannot be encoded is left out, so that it does not hide the others.
            let _ = encoder.encode_utf8(&[family], &mut text);
        }
        text.push('\n');
        text.push_str(&self.recorded.render());
        text
    }
}

/// Adds the actuator's routes. `/actuator/prometheus` is the router's own exporter.
pub(super) fn routes(app: &mut ServiceConfig) {
    // ntex answers 405 to other methods on a resource, but 404 on a route of the application.
    for (path, route) in [
        ("/actuator", web::get().to(index)),
        ("/actuator/health", web::get().to(health)),
        ("/actuator/health/liveness", web::get().to(liveness)),
        ("/actuator/health/readiness", web::get().to(health)),
        ("/actuator/info", web::get().to(info)),
        ("/actuator/metrics", web::get().to(metrics)),
        ("/actuator/metrics/{name}", web::get().to(metric)),
    ] {
        app.service(web::resource(path).route(route));
    }
}

/// Answers 405 to methods other than those of the router's exporter. Must be added after the router's routes.
pub(super) fn only_read(app: &mut ServiceConfig) {
    app.service(web::resource("/actuator/prometheus"));
}

async fn index() -> HttpResponse {
    let link = |path: &str| json!({ "href": path, "templated": path.contains('{') });
    answer(
        StatusCode::OK,
        &json!({ "_links": {
            "self": link("/actuator"),
            "health": link("/actuator/health"),
            "info": link("/actuator/info"),
            "metrics": link("/actuator/metrics"),
            "metrics-requiredMetricName": link("/actuator/metrics/{requiredMetricName}"),
            "prometheus": link("/actuator/prometheus"),
        } }),
    )
}

/// Ready when a supergraph is loaded.
async fn health(request: HttpRequest, actuator: web::types::State<Actuator>) -> HttpResponse {
    let ready = actuator.schema.is_ready(&request).await;
    let (status, state) = if ready {
        (StatusCode::OK, "UP")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "OUT_OF_SERVICE")
    };
    let mut body = json!({ "status": state, "components": { "supergraph": { "status": state } } });
    if request.path() == "/actuator/health" {
        body["groups"] = json!(["liveness", "readiness"]);
    }
    answer(status, &body)
}

async fn liveness() -> HttpResponse {
    answer(StatusCode::OK, &json!({ "status": "UP" }))
}

async fn info() -> HttpResponse {
    answer(
        StatusCode::OK,
        &json!({ "app": { "name": "gateway" }, "build": { "name": "tandem", "version": env!("CARGO_PKG_VERSION") } }),
    )
}

async fn metrics(actuator: web::types::State<Actuator>) -> HttpResponse {
    let names = measurements::names(&actuator.rendered());
    answer(StatusCode::OK, &json!({ "names": names }))
}

async fn metric(
    request: HttpRequest,
    actuator: web::types::State<Actuator>,
    query: web::types::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let name = request.match_info().get("name").unwrap_or_default();
    match measurements::of(&actuator.rendered(), name, &query) {
        Some(measured) => answer(StatusCode::OK, &measured),
        None => problem(
            StatusCode::NOT_FOUND,
            request.path(),
            "There is no such metric with these tags: /actuator/metrics lists the names.",
        ),
    }
}

fn answer(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(MEDIA_TYPE)
        .body(body.to_string())
}
