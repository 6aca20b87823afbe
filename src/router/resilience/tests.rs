#![allow(clippy::unwrap_used)]
//! Invalid settings, counters that exist from the beginning, and calls that are never sent or sent twice.

use super::*;

#[test]
fn settings_that_do_not_fit_are_named() {
    for (json, field) in [
        (r#"{"breaker_window":0}"#, "breaker_window"),
        (r#"{"breaker_failure_rate":0}"#, "breaker_failure_rate"),
        (r#"{"breaker_failure_rate":1.5}"#, "breaker_failure_rate"),
        (r#"{"breaker_pause_ms":0}"#, "breaker_pause_ms"),
        (r#"{"breaker_trials":0}"#, "breaker_trials"),
    ] {
        let settings: ResilienceSettings = serde_json::from_str(json).unwrap();
        let error = settings.check().unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
    assert!(serde_json::from_str::<ResilienceSettings>(r#"{"breaker":1}"#).is_err());
    ResilienceSettings::default().check().unwrap();
}

#[test]
fn what_may_fail_is_counted_from_zero_on() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || show_counters(["accounts", "orders"]));
    let shown = handle.render();
    let left_alone = SubgraphExecutorError::CircuitBreakerRejected.error_code();
    for service in ["accounts", "orders"] {
        let is_shown = |line: &str| {
            line.starts_with(FAILURES)
                && line.contains(&format!("\"{service}\""))
                && line.contains(&format!("\"{left_alone}\""))
                && line.ends_with(" 0")
        };
        assert!(shown.lines().any(is_shown), "{shown}");
    }
}

#[test]
fn what_asks_for_the_name_of_its_root_alone_needs_no_service() {
    assert_eq!(
        only_names_its_type("{__typename a: __typename}").unwrap(),
        r#"{"data":{"__typename":"Query","a":"Query"}}"#
    );
    assert_eq!(
        only_names_its_type("mutation{__typename}").unwrap(),
        r#"{"data":{"__typename":"Mutation"}}"#
    );
    for other in [
        "{__typename customer{id}}",
        "{orders}",
        "{a: orders}",
        "{__typename ...{a}}",
        "query($a:Boolean!){__typename@skip(if:$a)}",
    ] {
        assert!(only_names_its_type(other).is_none(), "{other}");
    }
}

#[test]
fn only_mutations_are_never_sent_twice() {
    assert!(is_mutation("mutation{a}") && is_mutation("mutation($a:ID!){a(b:$a)}"));
    assert!(!is_mutation("{mutation}") && !is_mutation("query($a:ID!){a(b:$a)}"));
}
