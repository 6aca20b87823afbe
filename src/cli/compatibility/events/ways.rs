//! The ways in which a JSON Schema allows a document to be written: each combination of alternatives as one flat set of
//! keywords. Keywords beside a reference, `allOf` or alternatives hold in addition, so each way contains them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

/// Keywords that do not affect what is valid.
const ANNOTATIONS: [&str; 12] = [
    "$id",
    "$schema",
    "$defs",
    "definitions",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// The keywords that together say which members are allowed.
pub(super) const MEMBERS: &[&str] = &["properties", "patternProperties", "additionalProperties"];
/// The keywords that together say which items are allowed.
const ITEMS: &[&str] = &["items", "prefixItems"];
/// How many references are followed in a row, and how many levels. The bound is needed because a schema may refer to
/// itself.
pub(super) const DEEPEST: usize = 64;
/// The most ways of one place that are compared.
const MOST: usize = 1_000;

/// The keywords of one schema. All of them hold.
pub(super) type Keywords = Map<String, Value>;

/// The keywords of a schema that affect what is valid.
pub(super) fn keywords(schema: &Value) -> Keywords {
    let members = schema.as_object().into_iter().flatten();
    members
        .filter(|(name, _)| !ANNOTATIONS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// The schema that a reference points to.
///
/// # Errors
/// The message to report when it points to nothing in this document.
pub(super) fn named<'a>(reference: &Value, root: &'a Value) -> Result<&'a Value, String> {
    let path = reference.as_str().and_then(|name| name.strip_prefix('#'));
    path.and_then(|path| root.pointer(path))
        .ok_or_else(|| format!("has $ref {reference}, which names nothing in this document"))
}

/// The types that the keyword `type` allows.
pub(super) fn types(named: &Value) -> Option<BTreeSet<String>> {
    match named {
        Value::String(one) => Some(BTreeSet::from([one.clone()])),
        Value::Array(several) => several
            .iter()
            .map(|one| one.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// All ways in which a document may be written. Where two conditions on the same thing cannot be combined, only the
/// first is kept. That allows more documents, so none is overlooked.
///
/// # Errors
/// A message that says what is not understood.
pub(super) fn ways(schema: &Value, root: &Value) -> Result<Vec<Keywords>, String> {
    ways_within(schema, root, 0)
}

fn ways_within(schema: &Value, root: &Value, depth: usize) -> Result<Vec<Keywords>, String> {
    if depth > DEEPEST {
        return Err("refers to itself without an end".to_owned());
    }
    let mut own = match schema {
        Value::Bool(true) => return Ok(vec![Keywords::new()]),
        Value::Bool(false) => return Ok(Vec::new()),
        Value::Object(_) => keywords(schema),
        other => return Err(format!("has {other} for a schema")),
    };
    // Lists of schemas. One schema of each list must hold.
    let mut conditions: Vec<Vec<Value>> = Vec::new();
    if let Some(reference) = own.remove("$ref") {
        conditions.push(vec![named(&reference, root)?.clone()]);
    }
    for keyword in ["allOf", "anyOf", "oneOf"] {
        match own.remove(keyword) {
            None => {}
            Some(Value::Array(all)) if keyword == "allOf" => {
                conditions.extend(all.into_iter().map(|one| vec![one]));
            }
            Some(Value::Array(some)) => conditions.push(some),
            Some(_) => return Err(format!("has {keyword} without a list")),
        }
    }
    if let Some(Value::Array(values)) = own.get("enum") {
        let constants = values.iter().map(|value| json!({ "const": value }));
        conditions.push(constants.collect());
        own.remove("enum");
    }
    let mut ways = vec![own];
    for alternatives in &conditions {
        let mut inner = Vec::new();
        for alternative in alternatives {
            inner.extend(ways_within(alternative, root, depth + 1)?);
        }
        if ways.len().saturating_mul(inner.len()) > MOST {
            return Err(format!("may be written in more than {MOST} ways"));
        }
        let mut together = Vec::new();
        for way in &ways {
            for other in &inner {
                together.extend(both(way, other)?);
            }
        }
        ways = together;
    }
    Ok(ways)
}

/// The keywords of a document that satisfies both. `None` where none can.
fn both(one: &Keywords, other: &Keywords) -> Result<Option<Keywords>, String> {
    for (keyword, group) in [
        ("patternProperties", MEMBERS),
        ("additionalProperties", MEMBERS),
        ("prefixItems", ITEMS),
    ] {
        // Such a keyword applies to what the other keywords of its own schema leave over.
        let leaves = |schema: &Keywords| {
            let value = schema.get(keyword);
            value.is_some_and(|value| value != &Value::Bool(true))
        };
        let has_some = |schema: &Keywords| group.iter().any(|it| schema.contains_key(*it));
        if (leaves(one) && has_some(other)) || (leaves(other) && has_some(one)) {
            return Err(format!(
                "has {keyword} beside a reference or a list of schemas that tells of the same"
            ));
        }
    }
    let mut both = one.clone();
    for (keyword, value) in other {
        let joined = match (keyword.as_str(), one.get(keyword)) {
            (_, None) => value.clone(),
            (_, Some(own)) if own == value => continue,
            ("type", Some(own)) => match (types(own), types(value)) {
                (Some(these), Some(those)) => {
                    let common = common(&these, &those);
                    if common.is_empty() {
                        return Ok(None);
                    }
                    json!(common)
                }
                _ => continue,
            },
            ("required", Some(own)) => {
                let names = [own, value].map(Value::as_array).into_iter().flatten();
                let names: Vec<&Value> = names.flatten().collect();
                json!(names)
            }
            ("properties", Some(own)) => members(own, value),
            ("items", Some(own)) => json!({ "allOf": [own, value] }),
            _ => continue,
        };
        both.insert(keyword.clone(), joined);
    }
    Ok(Some(both))
}

fn common(these: &BTreeSet<String>, those: &BTreeSet<String>) -> BTreeSet<String> {
    let mut common: BTreeSet<String> = these.intersection(those).cloned().collect();
    let is_in = |types: &BTreeSet<String>, kind: &str| types.contains(kind);
    for (one, other) in [(these, those), (those, these)] {
        if is_in(one, "integer") && is_in(other, "number") {
            common.insert("integer".to_owned());
        }
    }
    common
}

/// The members of both. If both have a member with the same name, both schemas of it must hold.
fn members(one: &Value, other: &Value) -> Value {
    let mut joined = one.as_object().cloned().unwrap_or_default();
    for (name, value) in other.as_object().into_iter().flatten() {
        let schema = match joined.get(name) {
            Some(own) if own != value => json!({ "allOf": [own, value] }),
            _ => value.clone(),
        };
        joined.insert(name.clone(), schema);
    }
    Value::Object(joined)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schema: &Value) -> Value {
        match ways(schema, schema) {
            Ok(ways) => json!(ways),
            Err(why) => json!(why),
        }
    }

    #[test]
    fn what_stands_beside_a_reference_and_beside_alternatives_is_in_each_way() {
        let schema = json!({
            "$ref": "#/$defs/Text",
            "description": "Says nothing.",
            "maxLength": 3,
            "anyOf": [{ "pattern": "^a" }, { "pattern": "^b" }],
            "$defs": { "Text": { "type": "string", "minLength": 1 } },
        });
        assert_eq!(
            all(&schema),
            json!([
                { "type": "string", "minLength": 1, "maxLength": 3, "pattern": "^a" },
                { "type": "string", "minLength": 1, "maxLength": 3, "pattern": "^b" },
            ])
        );
    }

    #[test]
    fn each_value_that_is_listed_is_a_way() {
        let listed = json!({ "type": "string", "enum": ["a", "b"] });
        assert_eq!(
            all(&listed),
            json!([
                { "type": "string", "const": "a" },
                { "type": "string", "const": "b" },
            ])
        );
    }

    #[test]
    fn conditions_on_the_same_thing_are_put_together() {
        let schema = json!({
            "type": ["object", "null"],
            "required": ["a"],
            "properties": { "a": { "type": "string" }, "b": true },
            "allOf": [{
                "type": "object",
                "required": ["c"],
                "properties": { "a": { "maxLength": 3 }, "c": true },
            }],
        });
        assert_eq!(
            all(&schema),
            json!([{
                "type": ["object"],
                "required": ["a", "c"],
                "properties": {
                    "a": { "allOf": [{ "type": "string" }, { "maxLength": 3 }] },
                    "b": true,
                    "c": true,
                },
            }])
        );
        let nothing = json!({ "type": "string", "anyOf": [{ "type": "null" }] });
        assert_eq!(all(&nothing), json!([]));
        let whole = json!({ "type": "number", "allOf": [{ "type": "integer" }] });
        assert_eq!(all(&whole), json!([{ "type": ["integer"] }]));
    }

    #[test]
    fn what_depends_on_its_neighbours_is_not_put_together_with_others() {
        let closed = json!({
            "additionalProperties": false,
            "allOf": [{ "properties": { "a": true } }],
        });
        let why = "has additionalProperties beside a reference or a list of schemas that tells of the same";
        assert_eq!(all(&closed), json!(why));
    }

    #[test]
    fn references_that_lead_nowhere_are_refused() {
        let elsewhere = json!({ "$ref": "other.json#/Text" });
        let why = "has $ref \"other.json#/Text\", which names nothing in this document";
        assert_eq!(all(&elsewhere), json!(why));
        let itself = json!({ "$ref": "#" });
        assert_eq!(all(&itself), json!("refers to itself without an end"));
    }
}
