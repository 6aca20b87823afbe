//! Which values one way of a schema allows to be written: their types, and listed values.

use std::collections::BTreeSet;

use serde_json::{Number, Value};

use super::ways::{Keywords, types};

/// Whether no value can be written in both ways.
pub(super) fn is_apart(one: &Keywords, other: &Keywords) -> bool {
    if let (Some(these), Some(those)) = (listed(one), listed(other)) {
        return these.iter().all(|value| !those.contains(value));
    }
    let is_number = |kind: &str| matches!(kind, "integer" | "number");
    match (kinds(one), kinds(other)) {
        (Some(these), Some(those)) => these.iter().all(|kind| {
            let is_same = |other: &String| kind == other || is_number(kind) && is_number(other);
            !those.iter().any(is_same)
        }),
        _ => false,
    }
}

/// The types of the values that may be written. `None` if all types are allowed.
pub(super) fn kinds(schema: &Keywords) -> Option<BTreeSet<String>> {
    match listed(schema) {
        Some(values) => Some(values.iter().map(|value| kind(value).to_owned()).collect()),
        None => schema.get("type").and_then(types),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
        // 1.0 is an integer too.
        Value::Number(number) if number.as_f64().is_some_and(|it| it.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a value of this type may be written.
pub(super) fn may_be(schema: &Keywords, kind: &str) -> bool {
    kinds(schema).is_none_or(|kinds| kinds.contains(kind))
}

/// The listed values; one of them must be written. `None` if no values are listed.
pub(super) fn listed(schema: &Keywords) -> Option<Vec<Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value.clone()]);
    }
    schema.get("enum").and_then(Value::as_array).cloned()
}

pub(super) fn is_at_least(number: &Number, bound: &Number) -> bool {
    match (number.as_i64(), bound.as_i64()) {
        (Some(number), Some(bound)) => number >= bound,
        _ => number
            .as_f64()
            .zip(bound.as_f64())
            .is_some_and(|(number, bound)| number >= bound),
    }
}
