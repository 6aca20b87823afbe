//! The health of a service: its components, by polling or by their own reports, and the readiness that follows from
//! them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use tandem_runtime::shutdown::Shutdown;

/// The time limit of one check. A component that exceeds it counts as down.
pub const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The state of a component or of the whole service. The order is from good to bad; the worst state decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It works.
    Up,
    /// Requests are answered, but something that they do not wait for is missing.
    Degraded,
    /// It works, but should not be used now.
    OutOfService,
    /// It does not work.
    Down,
}

/// The state of a component, with details for people.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComponentHealth {
    /// Its state.
    pub status: Status,
    /// Facts such as figures and reasons. Never credentials, and never data about a person: everybody who reaches the
    /// port may read them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub details: Map<String, Value>,
    /// Facts for operators only.
    #[serde(skip)]
    confidential: Map<String, Value>,
}

impl ComponentHealth {
    /// It works.
    pub fn up() -> Self {
        Self::of(Status::Up)
    }

    /// Requests are answered, but something is wrong; the reason says what.
    pub fn degraded(reason: impl Into<String>) -> Self {
        Self::of(Status::Degraded).with("reason", reason.into())
    }

    /// It does not work, for this reason.
    pub fn down(reason: impl Into<String>) -> Self {
        Self::of(Status::Down).with("error", reason.into())
    }

    /// It should not be used now, for this reason.
    pub fn out_of_service(reason: impl Into<String>) -> Self {
        Self::of(Status::OutOfService).with("reason", reason.into())
    }

    fn of(status: Status) -> Self {
        Self {
            status,
            details: Map::new(),
            confidential: Map::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }

    /// Adds a fact with ids of customers or orders, which only operators may see.
    #[must_use]
    pub fn with_confidential(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.confidential.insert(name.into(), value.into());
        self
    }
}

/// Whether a component's state decides if requests are sent to this instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Affects {
    /// Without this component no request can be answered well.
    Readiness,
    /// Requests can be answered without it. If it is worse than degraded, the service is only degraded.
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

/// A health report: the overall state, and the state of each component.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthReport {
    /// The worst state of the components. Components that readiness does not depend on count as degraded at worst.
    /// Without any components it is `UP`.
    pub status: Status,
    /// The components by name.
    pub components: BTreeMap<String, ComponentHealth>,
}

impl HealthReport {
    /// Adds the facts that only operators may see.
    #[must_use]
    pub fn for_operators(mut self) -> Self {
        for health in self.components.values_mut() {
            let confidential = std::mem::take(&mut health.confidential);
            health.details.extend(confidential);
        }
        self
    }
}

impl Health {
    /// Has no components yet. Readiness ends when shutdown is requested.
    pub fn new(shutdown: &Shutdown) -> Self {
        Self {
            components: Arc::default(),
            shutdown: Some(shutdown.clone()),
        }
    }

    /// Registers a component that is checked for every health request, with [`CHECK_TIMEOUT`] as its time limit. It
    /// replaces a component of the same name.
    pub fn register<C, F>(&self, name: impl Into<String>, affects: Affects, check: C)
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = ComponentHealth> + Send + 'static,
    {
        let source = Source::Check(Arc::new(move || Box::pin(check())));
        self.insert(name.into(), Component { affects, source });
    }

    /// Registers a component that reports its own state. Its initial state is out of service.
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

    /// Checks every component.
    pub async fn report(&self) -> HealthReport {
        self.report_of(|_| true).await
    }

    /// Checks the components that readiness depends on.
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

    #[expect(clippy::disallowed_methods, reason = "connections are real")]
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

/// Reports the state of one component. Clones report for the same component.
#[derive(Debug, Clone)]
pub struct HealthReporter {
    state: Arc<RwLock<ComponentHealth>>,
}

impl HealthReporter {
    /// Sets the component's state.
    pub fn set(&self, health: ComponentHealth) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// It works.
    pub fn up(&self) {
        self.set(ComponentHealth::up());
    }

    /// It does not work, for this reason.
    pub fn down(&self, reason: impl Into<String>) {
        self.set(ComponentHealth::down(reason));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_confidential_is_told_to_operators_alone() {
        let health = Health::default();
        let keys = health.reporter("dataKeys", Affects::HealthOnly);
        let told = ComponentHealth::degraded("events wait").with("waiting", 1);
        keys.set(told.with_confidential("of", "ada-1815"));
        let report = health.report().await;
        let everybody = serde_json::to_string(&report).unwrap_or_default();
        assert!(everybody.contains("\"waiting\":1"), "{everybody}");
        assert!(!everybody.contains("ada-1815"), "{everybody}");
        let report = report.for_operators();
        let operators = serde_json::to_string(&report).unwrap_or_default();
        assert!(operators.contains("\"of\":\"ada-1815\""), "{operators}");
    }
}
