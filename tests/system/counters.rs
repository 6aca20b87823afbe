//! Metrics that alerts and dashboards use exist from the start of a process: Prometheus sees no increase in a counter
//! that begins with its first increment.

use std::collections::BTreeSet;

use super::support::{
    Client, Tandem,
    checker::{CUSTOMER_TOPIC, ORDER_TOPIC},
    poll,
};

const ALERTS: &str = include_str!("../../observability/alerts.yml");
const KEY_TOPIC: &str = "accounts.customer.key";

/// The counters that the alert rules name.
fn watched() -> BTreeSet<&'static str> {
    let rules = ALERTS
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let is_of_a_name = |any: char| any.is_ascii_alphanumeric() || any == '_';
    rules
        .flat_map(|line| line.split(|any: char| !is_of_a_name(any)))
        .filter(|word| word.ends_with("_total"))
        .collect()
}

/// Waits until a process shows a series with this name and these labels. Returns its value.
#[track_caller]
fn shown(client: &Client, base: &str, name: &str, labels: &[String]) -> f64 {
    let is_it = |line: &&str| {
        let rest = line.strip_prefix(name);
        rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label.as_str()))
    };
    poll(&format!("{name} with {labels:?} at {base}"), || {
        let answer = client.get(&format!("{base}/actuator/prometheus")).body;
        let line = answer.lines().find(is_it)?;
        line.rsplit_once(' ')?.1.parse().ok()
    })
}

#[test]
fn what_alerts_watch_is_at_zero_before_anything_happens() {
    let tandem = Tandem::start();
    let client = Client::new();
    let (accounts, orders) = (tandem.accounts_url(""), tandem.orders_url(""));
    let gateway = tandem.gateway_url("");
    let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
    let mut expected = vec![(&orders, "live_subscribers_lagged_total", Vec::new())];
    for (base, topic) in [
        (&accounts, CUSTOMER_TOPIC),
        (&accounts, KEY_TOPIC),
        (&orders, CUSTOMER_TOPIC),
        (&orders, KEY_TOPIC),
        (&orders, ORDER_TOPIC),
    ] {
        expected.push((base, "events_refused_total", vec![label("topic", topic)]));
    }
    for (base, projection) in [
        (&accounts, "accounts-audit"),
        (&orders, "orders-replica"),
        (&orders, "orders-audit"),
    ] {
        for name in ["dead_letters", "dead_letter_keys", "projection_read_error"] {
            expected.push((base, name, vec![label("projection", projection)]));
        }
    }
    for service in ["accounts", "orders"] {
        let labels = vec![
            label("service", service),
            label("code", "SUBGRAPH_CIRCUIT_BREAKER_REJECTED"),
        ];
        expected.push((&gateway, "gateway_service_failures_total", labels));
    }
    for base in [&accounts, &orders, &gateway] {
        expected.push((
            base,
            "front_door_refusals_total",
            vec![label("reason", "rate")],
        ));
    }
    let known: BTreeSet<&str> = expected.iter().map(|(_, name, _)| *name).collect();
    let unknown: Vec<&str> = watched().difference(&known).copied().collect();
    assert!(
        unknown.is_empty(),
        "alerts watch these, too: see that they begin at 0, and say so here: {unknown:?}"
    );
    for (base, name, labels) in expected {
        let value = shown(&client, base, name, &labels);
        assert!(value == 0.0, "{name} with {labels:?} at {base}: {value}");
    }
}

#[test]
fn each_process_tells_how_much_of_the_machine_it_takes() {
    let tandem = Tandem::start();
    let client = Client::new();
    for base in [
        tandem.accounts_url(""),
        tandem.orders_url(""),
        tandem.gateway_url(""),
    ] {
        for name in ["process_cpu_seconds", "process_uptime_seconds"] {
            assert!(shown(&client, &base, name, &[]) > 0.0, "{name} at {base}");
        }
        let memory = shown(&client, &base, "process_resident_memory_bytes", &[]);
        assert!(memory > 1_000_000.0, "{base}: {memory}");
    }
}
