//! Metrics in the form of Spring Boot's `/actuator/metrics`: names with dots, statistics summed over the series, labels
//! as tags.
//!
//! They are read from the Prometheus text format, which every recorder writes. The gateway's metrics come from two
//! recorders.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::prometheus_text::{Sample, families};

/// The names of all metrics in a Prometheus text.
#[must_use]
pub fn names(rendered: &str) -> BTreeSet<String> {
    families(rendered)
        .keys()
        .map(|family| Unit::of(family).dotted_name)
        .collect()
}

/// The metric of this name, over the series that have the tags of a query (`tag=label:value`). `None` if there are no
/// such series. `name` is one of [`names`], or a Prometheus name.
#[must_use]
pub fn of(rendered: &str, name: &str, query: &[(String, String)]) -> Option<Value> {
    let families = families(rendered);
    let written = name.replace('.', "_");
    let (family, samples) = families
        .iter()
        .find(|(family, _)| **family == written)
        .or_else(|| {
            families
                .iter()
                .find(|(family, _)| Unit::of(family).dotted_name == name)
        })?;
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
    if selected.is_empty() && !wanted.is_empty() {
        return None;
    }
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
    Some(body)
}

/// How a Prometheus name is written in the actuator: dots for underscores, and the unit separate.
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
