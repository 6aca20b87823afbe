//! Health, info and metrics in the shapes of Spring Boot Actuator, so that probes and dashboards made for it work.
//!
//! Readiness says whether requests should be sent here. Liveness says whether a restart would help: it never depends on
//! a store or on Kafka, because restarting this process does not bring those back.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::open_metrics;
use super::problem::Problem;
use crate::telemetry::MetricsHandle;
use tandem_runtime::shutdown::Shutdown;

/// How long one check may take before its component counts as down.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of a component or of the whole service. The worst one counts; the order here is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It works.
    Up,
    /// Requests are answered, and something that they do not wait for is missing.
    Degraded,
    /// It works, but is not to be used now.
    OutOfService,
    /// It does not work.
    Down,
}

/// The state of a component, and what a person wants to know about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentHealth {
    /// Its state.
    pub status: Status,
    /// Facts: figures, reasons. Never credentials.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
}

impl ComponentHealth {
    /// It works.
    pub fn up() -> Self {
        Self::of(Status::Up)
    }

    /// Requests are answered, and why not all is well.
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::of(Status::Degraded).with("reason", reason.into())
    }

    /// It does not work, and why.
    pub fn down(reason: impl Into<String>) -> Self {
        Self::of(Status::Down).with("error", reason.into())
    }

    /// It is not to be used now, and why.
    pub fn out_of_service(reason: impl Into<String>) -> Self {
        Self::of(Status::OutOfService).with("reason", reason.into())
    }

    fn of(status: Status) -> Self {
        Self {
            status,
            details: Map::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }
}

/// Whether a component's state decides if requests are sent here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affects {
    /// Without it no request can be answered well.
    Readiness,
    /// Requests can be answered without it: where it is worse than degraded, the whole is degraded, and goes on.
    HealthOnly,
}

type CheckFuture = Pin<Box<dyn Future<Output = ComponentHealth> + Send>>;

#[derive(Clone)]
enum Source {
    Check(Arc<dyn Fn() -> CheckFuture + Send + Sync>),
    Reported(Arc<RwLock<ComponentHealth>>),
}

#[derive(Clone)]
struct Component {
    affects: Affects,
    source: Source,
}

/// The components of a service and their health. Clones share them.
#[derive(Clone, Default)]
pub struct Health {
    components: Arc<RwLock<BTreeMap<String, Component>>>,
    shutdown: Option<Shutdown>,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Health")
    }
}

/// Health as it is answered: a state, and that of each component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    /// The worst state of the components, of which those without which requests can be answered count as degraded at worst; `UP`
    /// without any.
    pub status: Status,
    /// Every component by name.
    pub components: BTreeMap<String, ComponentHealth>,
}

impl Health {
    /// No components yet; readiness ends when shutdown is requested.
    pub fn new(shutdown: &Shutdown) -> Self {
        Self {
            components: Arc::default(),
            shutdown: Some(shutdown.clone()),
        }
    }

    /// Registers a component that is asked whenever health is; it has [`CHECK_TIMEOUT`] to answer.
    /// A component of the same name is replaced.
    pub fn register<C, F>(&self, name: impl Into<String>, affects: Affects, check: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = ComponentHealth> + Send + 'static,
    {
        let source = Source::Check(Arc::new(move || Box::pin(check())));
        self.insert(name.into(), Component { affects, source });
    }

    /// Registers a component that tells its state itself. It begins as out of service.
    pub fn reporter(&self, name: impl Into<String>, affects: Affects) -> HealthReporter {
        let state = Arc::new(RwLock::new(ComponentHealth::out_of_service("starting")));
        let source = Source::Reported(state.clone());
        self.insert(name.into(), Component { affects, source });
        HealthReporter { state }
    }

    fn insert(&self, name: String, component: Component) {
        self.components
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name, component);
    }

    /// Asks every component.
    pub async fn report(&self) -> HealthReport {
        self.report_of(|_| true).await
    }

    /// Asks the components that readiness depends on.
    pub async fn readiness(&self) -> HealthReport {
        let mut report = self
            .report_of(|affects| affects == Affects::Readiness)
            .await;
        if self.shutdown.as_ref().is_some_and(Shutdown::is_requested) {
            let ending = ComponentHealth::out_of_service("shutting down");
            report.status = report.status.max(ending.status);
            report.components.insert("readinessState".into(), ending);
        }
        report
    }

    async fn report_of(&self, include: impl Fn(Affects) -> bool) -> HealthReport {
        let asked: Vec<(String, Component)> = self
            .components
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter(|(_, component)| include(component.affects))
            .map(|(name, component)| (name.clone(), component.clone()))
            .collect();
        let answers = asked.into_iter().map(|(name, component)| async move {
            let health = match component.source {
                Source::Reported(state) => {
                    state.read().unwrap_or_else(PoisonError::into_inner).clone()
                }
                Source::Check(check) => tokio::time::timeout(CHECK_TIMEOUT, check())
                    .await
                    .unwrap_or_else(|_| {
                        ComponentHealth::down(format!(
                            "no answer within {} ms",
                            CHECK_TIMEOUT.as_millis()
                        ))
                    }),
            };
            (name, component.affects, health)
        });
        let answers = futures::future::join_all(answers).await;
        let status = answers
            .iter()
            .map(|(_, affects, health)| match affects {
                Affects::Readiness => health.status,
                Affects::HealthOnly => health.status.min(Status::Degraded),
            })
            .max()
            .unwrap_or(Status::Up);
        let components = answers
            .into_iter()
            .map(|(name, _, health)| (name, health))
            .collect();
        HealthReport { status, components }
    }
}

/// Tells the state of one component. Clones tell of the same.
#[derive(Debug, Clone)]
pub struct HealthReporter {
    state: Arc<RwLock<ComponentHealth>>,
}

impl HealthReporter {
    /// Tells the component's state from now on.
    pub fn set(&self, health: ComponentHealth) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// It works.
    pub fn up(&self) {
        self.set(ComponentHealth::up());
    }

    /// It does not work, and why.
    pub fn down(&self, reason: impl Into<String>) {
        self.set(ComponentHealth::down(reason));
    }
}

/// What the actuator routes of a service answer from.
#[derive(Debug, Clone)]
pub struct Actuator {
    health: Health,
    metrics: MetricsHandle,
    info: Arc<Value>,
    started: Instant,
}

impl Actuator {
    /// `info` is what `/actuator/info` answers: name, version, and the like.
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
    let names: BTreeSet<String> = families(&actuator.rendered())
        .keys()
        .map(|family| Unit::of(family).dotted_name)
        .collect();
    ActuatorJson(json!({"names": names}))
}

async fn metric(
    State(actuator): State<Actuator>,
    Path(name): Path<String>,
    Query(query): Query<Vec<(String, String)>>,
) -> Result<ActuatorJson<Value>, Problem> {
    let rendered = actuator.rendered();
    let families = families(&rendered);
    let written = name.replace('.', "_");
    let Some((family, samples)) = families
        .iter()
        .find(|(family, _)| **family == written)
        .or_else(|| {
            families
                .iter()
                .find(|(family, _)| Unit::of(family).dotted_name == name)
        })
    else {
        return Err(Problem::not_found(format!(
            "there is no metric `{name}`; /actuator/metrics lists them"
        ))
        .with_instance(format!("/actuator/metrics/{name}")));
    };
    let wanted: Vec<(&str, &str)> = query
        .iter()
        .filter(|(key, _)| key == "tag")
        .filter_map(|(_, tag)| tag.split_once(':'))
        .collect();
    let selected: Vec<&Sample<'_>> = samples
        .iter()
        .filter(|sample| {
            wanted.iter().all(|(key, value)| {
                sample
                    .labels
                    .iter()
                    .any(|(label, given)| label == key && given == value)
            })
        })
        .collect();
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    let mut tags: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in &selected {
        let statistic = match (sample.suffix, Unit::of(family).base) {
            ("_bucket", _) => continue,
            ("_sum", Some("seconds")) => "TOTAL_TIME",
            ("_sum", _) => "TOTAL",
            ("_count", _) => "COUNT",
            _ if family.ends_with("_total") => "COUNT",
            _ => "VALUE",
        };
        *sums.entry(statistic).or_default() += sample.value;
        for (label, value) in &sample.labels {
            if !wanted.iter().any(|(key, _)| key == label) {
                tags.entry(label).or_default().insert(value);
            }
        }
    }
    let unit = Unit::of(family);
    let measurements: Vec<Value> = sums
        .iter()
        .map(|(statistic, value)| json!({"statistic": statistic, "value": value}))
        .collect();
    let tags: Vec<Value> = tags
        .iter()
        .map(|(tag, values)| json!({"tag": tag, "values": values}))
        .collect();
    let mut body = json!({
        "name": unit.dotted_name,
        "measurements": measurements,
        "availableTags": tags,
    });
    if let Some(base) = unit.base {
        body["baseUnit"] = base.into();
    }
    Ok(ActuatorJson(body))
}

/// How a Prometheus name reads in the actuator: dots for underscores, the unit apart.
struct Unit {
    dotted_name: String,
    base: Option<&'static str>,
}

impl Unit {
    fn of(family: &str) -> Self {
        for (suffix, base) in [
            ("_seconds", Some("seconds")),
            ("_bytes", Some("bytes")),
            ("_total", None),
        ] {
            if let Some(stem) = family.strip_suffix(suffix) {
                return Self {
                    dotted_name: stem.replace('_', "."),
                    base,
                };
            }
        }
        Self {
            dotted_name: family.replace('_', "."),
            base: None,
        }
    }
}

/// One line of the Prometheus text format.
#[derive(Debug)]
struct Sample<'a> {
    /// What the line's name has after the family's: `_bucket`, `_sum`, `_count` or nothing.
    suffix: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

/// The samples of each metric family. The text is our own recorder's, so anything odd is skipped, not reported.
fn families(rendered: &str) -> BTreeMap<&str, Vec<Sample<'_>>> {
    let mut families: BTreeMap<&str, Vec<Sample<'_>>> = BTreeMap::new();
    let mut current = "";
    for line in rendered.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            current = declared.split(' ').next().unwrap_or_default();
            continue;
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, parse_labels(labels.trim_end_matches('}'))),
            None => (series, Vec::new()),
        };
        let Some(suffix) = name.strip_prefix(current) else {
            continue;
        };
        let Ok(value) = value.parse() else { continue };
        families.entry(current).or_default().push(Sample {
            suffix,
            labels,
            value,
        });
    }
    families
}

/// `a="x",b="y"`, where a value may hold escaped quotes, backslashes and line ends.
fn parse_labels(mut text: &str) -> Vec<(&str, String)> {
    let mut labels = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let mut end = rest.len();
        while let Some((index, character)) = characters.next() {
            match character {
                '"' => {
                    end = index + 1;
                    break;
                }
                '\\' => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, escaped)) => value.push(escaped),
                    None => {}
                },
                plain => value.push(plain),
            }
        }
        labels.push((name.trim_start_matches(','), value));
        text = rest.get(end..).unwrap_or_default();
    }
    labels
}

/// What the operating system knows about this process. Memory and processor time only on Linux.
fn record_process(started: Instant) {
    metrics::gauge!("process_uptime_seconds").set(started.elapsed().as_secs_f64());
    if let Some(bytes) = resident_memory() {
        metrics::gauge!("process_resident_memory_bytes").set(bytes);
    }
    if let Some(seconds) = processor_time() {
        metrics::gauge!("process_cpu_seconds").set(seconds);
    }
    if let Ok(count) = std::thread::available_parallelism() {
        metrics::gauge!("system_cpu_count")
            .set(f64::from(u32::try_from(count.get()).unwrap_or(u32::MAX)));
    }
}

/// Bytes of memory that this process holds.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

/// Seconds of processor time that this process has used.
fn processor_time() -> Option<f64> {
    /// The kernel's unit in /proc, the same on every architecture that Linux still supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// JSON under the media type that Spring Boot's actuator gives it.
struct ActuatorJson<T>(T);

/// As Spring Boot 2.2 and later have it.
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
                let (status, problem) = setup.json("/actuator/metrics/nonsense").await;
                assert_eq!((status, &problem["status"]), (404, &json!(404)));
                let (_, text) = setup.text("/actuator/prometheus").await;
                assert!(text.contains("events_published_total{application=\"accounts\"} 7"));
            });
        });
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_processor_time_are_known_on_linux() {
        assert!(resident_memory().unwrap() > 1_000_000.0);
        assert!(processor_time().unwrap() >= 0.0);
    }
}
