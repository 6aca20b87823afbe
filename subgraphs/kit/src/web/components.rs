//! Health components that every service has: its store, the filling of a new one, the outbox, Kafka, projections.

use std::sync::Arc;

use super::actuator::{Affects, ComponentHealth, Health};
use crate::{
    aggregate::Aggregate, commands::Gate, consumer::ProjectionStatus, kafka::connection::Kafka,
    outbox::relay::RelayHandle, store::AggregateStore,
};

/// `store`: whether it answers. Affects readiness.
pub fn store<A: Aggregate>(health: &Health, store: &Arc<dyn AggregateStore<A>>) {
    let store = Arc::clone(store);
    health.register("store", Affects::Readiness, move || {
        let store = Arc::clone(&store);
        async move {
            match store.ping().await {
                Ok(()) => ComponentHealth::up(),
                Err(error) => ComponentHealth::down(error.to_string()),
            }
        }
    });
}

/// `filling`: whether a new store holds what the log holds. Affects readiness.
pub fn filling(health: &Health, gate: &Gate) {
    let gate = gate.clone();
    health.register("filling", Affects::Readiness, move || {
        let told = if gate.is_open() {
            ComponentHealth::up()
        } else {
            ComponentHealth::out_of_service("the store is new and is being filled from the log")
        };
        async move { told }
    });
}

/// `kafka`: whether it has been reached, and if not, why. Readiness is the outbox's affair.
pub fn kafka(health: &Health, kafka: &Kafka) {
    let kafka = kafka.clone();
    health.register("kafka", Affects::HealthOnly, move || {
        let told = match kafka.trouble() {
            None => ComponentHealth::up(),
            Some(trouble) => ComponentHealth::down(trouble),
        };
        async move { told }
    });
}

/// `outbox`: whether events are published in time. Affects readiness.
pub fn outbox(health: &Health, relay: &RelayHandle) {
    let relay = relay.clone();
    health.register("outbox", Affects::Readiness, move || {
        let told = outbox_now(&relay);
        async move { told }
    });
}

fn outbox_now(relay: &RelayHandle) -> ComponentHealth {
    let status = relay.status();
    let told = if relay.is_timely() {
        ComponentHealth::up()
    } else {
        ComponentHealth::out_of_service("events have waited too long to be published")
    };
    let told = told.with("oldestPendingSeconds", status.oldest_age().as_secs());
    let told = match status.backlog {
        Some(backlog) => told.with("pendingEvents", backlog.events),
        None => told,
    };
    let told = match status.trouble {
        Some(trouble) => told.with("trouble", trouble),
        None => told,
    };
    match status.refusal {
        Some(refusal) => told
            .with("refusedEvents", status.refused)
            .with("refusal", refusal),
        None => told,
    }
}

/// A projection under its name: how far it is behind, at most `most` messages, and whether it waits for its store.
pub fn projection(
    health: &Health,
    name: &'static str,
    affects: Affects,
    status: ProjectionStatus,
    most: i64,
) {
    health.register(name, affects, move || {
        let lag = status.lag();
        let told = if lag > most {
            ComponentHealth::out_of_service("too far behind the log")
        } else if status.is_waiting_for_store() {
            ComponentHealth::out_of_service(
                "waits for the store, or for a data key that is still to come",
            )
        } else {
            ComponentHealth::up()
        };
        let told = told
            .with("lag", lag)
            .with("applied", status.applied())
            .with("parkedKeys", status.parked_keys());
        async move { told }
    });
}
