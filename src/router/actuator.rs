//! Health, info and metrics of the gateway itself, shaped as Spring Boot Actuator.
//!
//! A service that is away does not make the gateway ill: it still answers what the other one knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hive_router::SchemaState;
use hive_router::ntex::http::StatusCode;
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use serde_json::{Value, json};

use super::problem::problem;

/// The media type that Spring Boot Actuator answers with.
const MEDIA_TYPE: &str = "application/vnd.spring-boot.actuator.v3+json";

/// What the actuator's answers are made from.
#[derive(Clone)]
pub(super) struct Actuator {
    registry: Option<prometheus::Registry>,
    schema: Arc<SchemaState>,
}

impl Actuator {
    /// `registry` holds the router's metrics; without it there are none to show.
    pub(super) fn new(registry: Option<prometheus::Registry>, schema: Arc<SchemaState>) -> Self {
        Self { registry, schema }
    }

    fn families(&self) -> Vec<prometheus::proto::MetricFamily> {
        self.registry
            .as_ref()
            .map(prometheus::Registry::gather)
            .unwrap_or_default()
    }
}

/// Adds the actuator's routes; `/actuator/prometheus` is the router's own exporter.
pub(super) fn routes(app: &mut ServiceConfig) {
    // A resource answers 405 to other methods, a route of the application 404.
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

/// Answers 405 where the router's own exporter can only be read. To be added after the router's routes.
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
    let names: BTreeSet<String> = actuator
        .families()
        .iter()
        .map(|family| family.name().to_owned())
        .collect();
    answer(StatusCode::OK, &json!({ "names": names }))
}

async fn metric(request: HttpRequest, actuator: web::types::State<Actuator>) -> HttpResponse {
    let name = request.match_info().get("name").unwrap_or_default();
    match actuator
        .families()
        .iter()
        .find(|family| family.name() == name)
    {
        Some(family) => answer(StatusCode::OK, &measured(family)),
        None => problem(
            StatusCode::NOT_FOUND,
            request.path(),
            "There is no such metric: /actuator/metrics lists the names.",
        ),
    }
}

/// One metric, summed over its labels, with the labels as tags.
fn measured(family: &prometheus::proto::MetricFamily) -> Value {
    let mut tags = BTreeMap::<&str, BTreeSet<&str>>::new();
    let (mut value, mut count, mut total) = (0.0, 0, 0.0);
    for metric in family.get_metric() {
        for label in metric.get_label() {
            tags.entry(label.name()).or_default().insert(label.value());
        }
        value += metric.get_counter().value() + metric.get_gauge().value();
        count += metric.get_histogram().get_sample_count();
        total += metric.get_histogram().get_sample_sum();
    }
    let measurements = match family.get_field_type() {
        prometheus::proto::MetricType::HISTOGRAM => json!([
            { "statistic": "COUNT", "value": count },
            { "statistic": "TOTAL", "value": total },
        ]),
        prometheus::proto::MetricType::COUNTER => json!([{ "statistic": "COUNT", "value": value }]),
        _ => json!([{ "statistic": "VALUE", "value": value }]),
    };
    let tags: Vec<Value> = tags
        .into_iter()
        .map(|(tag, values)| json!({ "tag": tag, "values": values }))
        .collect();
    json!({ "name": family.name(), "description": family.help(), "measurements": measurements, "availableTags": tags })
}

fn answer(status: StatusCode, body: &Value) -> HttpResponse {
    HttpResponse::build(status)
        .content_type(MEDIA_TYPE)
        .body(body.to_string())
}
