//! Compares two event bodies field by field. Sealed values are never shown.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// Shown in place of a sealed value.
pub const SEALED: &str = "(sealed)";
/// Fields that differ in every change and do not say what changed.
const ENVELOPE: [&str; 6] = [
    "revision",
    "changeType",
    "changedAt",
    "changedBy",
    "changedFields",
    "updatedAt",
];

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Where it is, such as `addresses[0].city`.
    pub field: String,
    /// What was there; null if nothing was, or if the caller may not see it.
    pub before: Value,
    /// What is there; null if nothing is, or if the caller may not see it.
    pub after: Value,
}

/// Whether the field of this name holds a sealed value.
#[must_use]
pub fn is_sealed(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("sealed") || name == "wrapped"
}

/// The value without any sealed data, at any depth.
#[must_use]
pub fn without_sealed(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| {
                let shown = if is_sealed(name) && !member.is_null() {
                    SEALED.into()
                } else {
                    without_sealed(member)
                };
                (name.clone(), shown)
            })
            .collect::<Map<String, Value>>()
            .into(),
        Value::Array(elements) => elements.iter().map(without_sealed).collect(),
        other => other.clone(),
    }
}

/// All values that differ between two bodies, in the order of the field names.
#[must_use]
pub fn differences(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    objects("", before, after, &mut found);
    found
}

fn objects(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    found: &mut Vec<Difference>,
) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let value = |map: &Map<String, Value>| map.get(name).cloned().unwrap_or_default();
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        compare(&path, &value(old), &value(new), found);
    }
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    if before == after || ENVELOPE.contains(&path) {
        return;
    }
    let last = path.rsplit('.').next().unwrap_or(path);
    let mut add = |before, after| {
        found.push(Difference {
            field: path.to_owned(),
            before,
            after,
        });
    };
    if is_sealed(last) {
        add(SEALED.into(), SEALED.into());
        return;
    }
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => objects(path, old, new, found),
        (Value::Null, Value::Object(new)) => objects(path, &Map::new(), new, found),
        (Value::Array(_) | Value::Null, Value::Array(new)) => {
            let none = Vec::new();
            let old = before.as_array().unwrap_or(&none);
            for place in 0..old.len().max(new.len()) {
                let value = |list: &[Value]| list.get(place).cloned().unwrap_or_default();
                let path = format!("{path}[{place}]");
                compare(&path, &value(old), &value(new), found);
            }
        }
        _ => add(without_sealed(before), without_sealed(after)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(before: &Value, after: &Value) -> Vec<Difference> {
        let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
        differences(&map(before), &map(after))
    }

    #[test]
    fn differences_name_each_field_that_changed() {
        let before =
            json!({"name": {"firstName": "Ada"}, "addresses": [{"city": "London"}], "revision": 1});
        let after = json!({"name": {"firstName": "Ada", "suffix": "Sr."}, "addresses": [{"city": "Ockham"}, {"city": "Paris"}], "revision": 2});
        let found = of(&before, &after);
        let fields: Vec<_> = found.iter().map(|it| it.field.as_str()).collect();
        assert_eq!(
            fields,
            ["addresses[0].city", "addresses[1].city", "name.suffix"]
        );
    }

    #[test]
    fn a_sealed_number_is_never_shown() {
        let found = of(
            &json!({"creditCards": [{"sealedNumber": "v1.a"}]}),
            &json!({"creditCards": [{"sealedNumber": "v1.b"}]}),
        );
        assert_eq!(found[0].after, SEALED);
        assert!(!json!(found).to_string().contains("v1."), "{found:?}");
    }

    #[test]
    fn what_is_sealed_is_not_shown_either_where_it_comes_goes_or_lies_deep() {
        let card = json!({"last4": "0000", "sealedNumber": "v1.a", "deep": [{"sealedName": {"x": "v1.b"}}]});
        for (before, after) in [
            (json!({"creditCards": [card]}), json!({"creditCards": []})),
            (json!({"creditCards": [card]}), json!({})),
            (json!({"creditCards": [card]}), json!({"creditCards": 5})),
            (json!({}), json!({"creditCards": [card]})),
            (json!({"creditCards": card}), json!({"creditCards": null})),
            (
                json!({"sealed": {"a": "v1.c"}}),
                json!({"sealed": ["v1.d"]}),
            ),
            (
                json!({"person": {"sealed": "v1.e"}}),
                json!({"person": {"sealed": "v1.f"}}),
            ),
        ] {
            let found = of(&before, &after);
            let text = json!(found).to_string();
            assert!(!found.is_empty() && !text.contains("v1."), "{text}");
        }
    }

    #[test]
    fn what_is_sealed_or_wrapped_is_never_shown() {
        let body = json!({"sealed": "v1.a", "wrapped": "v1.b", "cards": [{"sealedNumber": "v1.c"}], "sealing_key": "ab"});
        let shown = without_sealed(&body).to_string();
        assert!(!shown.contains("v1.") && shown.contains("ab"), "{shown}");
    }
}
