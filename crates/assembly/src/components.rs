//! The health components of every service: its store, the filling of a new store, the outbox, Kafka, and projections.
//!
//! A component that makes one instance not ready takes it out of service. A cause that all instances share takes out
//! all of them. So readiness depends only on what a correct answer needs: the store, and for a new store that it is
//! filled. Components that only make answers older or changes visible later are reported as degraded.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use tandem_event_path::{
    commands::Gate,
    log::Log,
    log_memory::LogWatch,
    outbox::relay::{Lateness, RelayHandle},
    projection::ProjectionStatus,
    sealing::Sealer,
    store::AggregateStore,
    waiting::Waiting,
};
use tandem_model::aggregate::Aggregate;
use tandem_service::web::actuator::{Affects, ComponentHealth, Health};

/// `store`: whether it answers, and whether the last attempt to write succeeded. Only the first affects readiness,
/// because reads still work when writes fail.
pub fn store<A: Aggregate>(health: &Health, store: &Arc<dyn AggregateStore<A>>) {
    let store = Arc::clone(store);
    health.register("store", Affects::Readiness, move || {
        let store = Arc::clone(&store);
        async move {
            match store.ping().await {
                Ok(()) => match store.last_failure() {
                    None => ComponentHealth::up(),
                    Some(failure) => ComponentHealth::degraded(format!(
                        "the last write failed: {}",
                        failure
                            .public_reason()
                            .unwrap_or("the log of the service says why")
                    )),
                },
                Err(error) => ComponentHealth::down(error.to_string()),
            }
        }
    });
}

/// `filling`: whether a new store has everything that the log has. Affects readiness.
pub fn filling(health: &Health, gate: &Gate) {
    let gate = gate.clone();
    health.register("filling", Affects::Readiness, move || {
        let told = if gate.is_open() {
            ComponentHealth::up()
        } else {
            let filling = "the store is being filled from the log".to_owned();
            ComponentHealth::out_of_service(gate.reason().unwrap_or(filling))
        };
        async move { told }
    });
}

/// `kafka`: whether it is reachable and its messages are readable, with the reason if not. No request waits for it.
pub fn kafka(health: &Health, log: &Arc<dyn Log>) {
    let log = Arc::clone(log);
    health.register("kafka", Affects::HealthOnly, move || {
        let told = kafka_now(log.failure(), &log.unreadable());
        async move { told }
    });
}

fn kafka_now(failure: Option<String>, unreadable: &[String]) -> ComponentHealth {
    match failure {
        Some(failure) => ComponentHealth::down(failure),
        None if unreadable.is_empty() => ComponentHealth::up(),
        None => ComponentHealth::degraded(unreadable.join("; ")),
    }
}

/// How long an event may wait for its data key before health reports it. A key that is published with its event may
/// arrive a moment later.
const KEY_DELAY: TimeDelta = TimeDelta::seconds(5);
/// How many subjects of missing keys are named.
const NAMED: usize = 10;

/// `dataKeys`: whether events wait for their data key, or an existing key does not open. Operators also see whose.
pub fn data_keys(health: &Health, waiting: Vec<Waiting>, sealer: &Sealer) {
    let sealer = sealer.clone();
    health.register("dataKeys", Affects::HealthOnly, move || {
        let told = data_keys_now(&waiting, &sealer);
        async move { told }
    });
}

fn data_keys_now(waiting: &[Waiting], sealer: &Sealer) -> ComponentHealth {
    let subjects: BTreeSet<String> = waiting.iter().flat_map(Waiting::subjects).collect();
    let since = waiting.iter().filter_map(Waiting::since).min();
    let now = DateTime::<Utc>::from(sealer.clock().now());
    let is_late = since.is_some_and(|since| now - since > KEY_DELAY);
    let unopened = sealer.unopened();
    let told = if !unopened.is_empty() {
        ComponentHealth::degraded(
            "data keys do not open with the sealing keys that were given: give the service the key that sealed them, too",
        )
    } else if is_late {
        ComponentHealth::degraded(
            "events wait for data keys that are not on the topic of keys, or do not open; `tandem keys waiting` says more",
        )
    } else {
        ComponentHealth::up()
    };
    let told = told
        .with("waiting", subjects.len())
        .with("unopened", unopened.len());
    let all: BTreeSet<String> = subjects.into_iter().chain(unopened).collect();
    let named: Vec<String> = all.into_iter().take(NAMED).collect();
    match named.is_empty() {
        true => told,
        false => told.with_confidential("of", named.join(", ")),
    }
}

/// `log`: whether the logs are those that the store was made from.
pub fn log(health: &Health, watch: &LogWatch) {
    let watch = watch.clone();
    health.register("log", Affects::HealthOnly, move || {
        let told = match watch.alarms() {
            None => ComponentHealth::up().with("checked", false),
            Some(alarms) if alarms.is_empty() => ComponentHealth::up(),
            Some(alarms) => {
                let alarms: Vec<String> = alarms
                    .iter()
                    .map(|alarm| format!("{}/{}: {}", alarm.topic, alarm.partition, alarm.what))
                    .collect();
                ComponentHealth::degraded(
                    "a log is not the one that this store was made from; docs/production.md says what to do",
                )
                .with("alarms", alarms.join("; "))
            }
        };
        async move { told }
    });
}

/// `outbox`: whether events are published in time. Late events degrade it. Readiness is affected only if the settings
/// have a limit for it.
pub fn outbox(health: &Health, relay: &RelayHandle) {
    let relay = relay.clone();
    health.register("outbox", Affects::Readiness, move || {
        let told = outbox_now(&relay);
        async move { told }
    });
}

fn outbox_now(relay: &RelayHandle) -> ComponentHealth {
    let status = relay.status();
    let told = match relay.lateness() {
        Lateness::None => ComponentHealth::up(),
        Lateness::Late => ComponentHealth::degraded(
            "events wait to be published; nothing is lost, and readers get to know of changes late",
        ),
        Lateness::Unready => {
            ComponentHealth::out_of_service("events have waited too long to be published")
        }
    };
    let told = told.with("oldestPendingSeconds", relay.oldest_age().as_secs());
    let told = match status.backlog {
        Some(backlog) => told.with("pendingEvents", backlog.events),
        None => told,
    };
    let told = match status.failure {
        Some(failure) => told.with("failure", failure),
        None => told,
    };
    match status.refusal {
        Some(refusal) => told
            .with("refusedEvents", status.refused)
            .with_confidential("refusal", refusal),
        None => told,
    }
}

/// A projection by its name: its lag, what it cannot read, and whether it waits for its store. A lag of more than
/// `late` messages degrades it. All instances share what it writes, so readiness is affected only if the settings have
/// a limit (`unready`).
pub fn projection(
    health: &Health,
    name: &'static str,
    status: ProjectionStatus,
    late: i64,
    unready: Option<i64>,
) {
    let affects = match unready {
        Some(_) => Affects::Readiness,
        None => Affects::HealthOnly,
    };
    health.register(name, affects, move || {
        let lag = status.lag();
        // Dead letters hold back only their own keys, so they are no reason to take a whole service out.
        let told = if unready.is_some_and(|most| status.unread() > most) {
            ComponentHealth::out_of_service("too far behind the log")
        } else if let Some(error) = status.read_error() {
            ComponentHealth::degraded(error)
        } else if lag > late {
            ComponentHealth::degraded("far behind the log; what is read here is older")
        } else if status.is_waiting_for_store() {
            ComponentHealth::degraded("waits for the store")
        } else {
            ComponentHealth::up()
        };
        let told = told
            .with("lag", lag)
            .with("applied", status.applied())
            .with("parkedKeys", status.parked_keys())
            .with("deadLetters", status.held_back());
        async move { told }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tandem_event_path::{
        data_keys::DataKey,
        log::{ReadErrors, Told},
    };
    use tandem_runtime::{clock::Clock, shutdown::Shutdown};
    use tandem_service::web::actuator::Status;

    use super::*;

    #[test]
    fn a_data_key_that_does_not_open_degrades_until_it_does() {
        let (_, newer) = DataKey::make(&Sealer::replacing(&[8; 32], &[]), "1");
        let (_, older) = DataKey::make(&Sealer::replacing(&[7; 32], &[]), "1");
        let sealer = Sealer::replacing(&[7; 32], &[]);
        let well = data_keys_now(&[], &sealer);
        assert_eq!(
            well,
            ComponentHealth::up().with("waiting", 0).with("unopened", 0)
        );
        assert!(DataKey::unwrap(&sealer, &newer, "1").is_err());
        let told = data_keys_now(&[], &sealer);
        assert_eq!(told.status, Status::Degraded);
        assert_eq!(told.details["unopened"], 1);
        assert!(DataKey::unwrap(&sealer, &older, "1").is_ok());
        assert_eq!(data_keys_now(&[], &sealer), well);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_projection_could_not_read_for_ten_seconds_degrades_it() {
        let (shutdown, clock) = (Shutdown::new(), Clock::default());
        let health = Health::new(&shutdown);
        let errors = ReadErrors::new(&clock);
        let status = ProjectionStatus::of(errors.clone());
        projection(&health, "replica", status, 10_000, None);
        let told = async || health.report().await.components.remove("replica");

        for _ in 0..10 {
            assert_eq!(told().await.map(|told| told.status), Some(Status::Up));
            errors.failed("partition 3 cannot be read".to_owned(), Told::EachTime);
            clock.sleep(Duration::from_secs(1)).await;
        }
        errors.failed("partition 3 cannot be read".to_owned(), Told::EachTime);
        let replica = told().await;
        let reason = replica.as_ref().map(|told| told.details["reason"].clone());
        assert_eq!(replica.map(|told| told.status), Some(Status::Degraded));
        assert_eq!(reason, Some("partition 3 cannot be read".into()));

        clock.sleep(Duration::from_secs(10)).await;
        assert_eq!(told().await.map(|told| told.status), Some(Status::Up));
    }

    #[test]
    fn kafka_is_degraded_where_it_answers_and_cannot_be_read() {
        let unreadable = ["accounts.customer.key cannot be read".to_owned()];
        assert_eq!(kafka_now(None, &[]).status, Status::Up);
        let told = kafka_now(None, &unreadable);
        assert_eq!(told.status, Status::Degraded);
        assert_eq!(told.details["reason"], unreadable[0].as_str());
        let told = kafka_now(Some("the port is closed".to_owned()), &unreadable);
        assert_eq!(told.status, Status::Down);
    }
}
