//! The contract that the tests of every service check events against: samples of all versions, and schemas that may
//! only grow.
//!
//! `test-data/events/` has three kinds of files for each event. None of them is ever changed.
//!
//! * `EVENT.vN.json`: a message in the form that a topic holds.
//! * `EVENT.vN.expected.json`: what each service reads from that message.
//! * `EVENT.vN.schema.json`: the published schema of version N.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value};

use tandem_model::message::{Message, Position};

/// One committed sample.
#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub message: Message,
    expected: Value,
}

impl Sample {
    /// What the given service must read from the sample.
    #[must_use]
    pub fn expected(&self, service: &str) -> &Value {
        let expected = &self.expected[service];
        assert!(
            !expected.is_null(),
            "{}: nothing is expected of {service}",
            self.name
        );
        expected
    }

    /// The same message with a changed body.
    #[must_use]
    pub fn with_body(&self, change: impl Fn(&mut Value)) -> Message {
        let mut message = self.message.clone();
        let mut body = serde_json::from_slice(message.payload.as_deref().unwrap()).unwrap();
        change(&mut body);
        message.payload = Some(body.to_string().into_bytes());
        message
    }
}

fn files(event: &str, ending: &str) -> BTreeMap<String, Value> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../test-data/events");
    let found: BTreeMap<String, Value> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.to_owned();
            let version = name.strip_prefix(event)?.strip_prefix('.')?;
            let version = version.strip_suffix(ending)?;
            // `v1` or `v1-minimal`. The other endings contain a dot and are left out.
            (!version.contains('.')).then(|| {
                (
                    name,
                    serde_json::from_slice(&fs::read(&path).unwrap()).unwrap(),
                )
            })
        })
        .collect();
    assert!(
        !found.is_empty(),
        "there is no {event}.v*{ending} in {}",
        folder.display()
    );
    found
}

/// All samples of an event. There is always at least one.
#[must_use]
pub fn samples(event: &str) -> Vec<Sample> {
    let mut expected = files(event, ".expected.json");
    let found: Vec<Sample> = files(event, ".json")
        .into_iter()
        .map(|(name, sample)| {
            let beside = name.replace(".json", ".expected.json");
            let expected = expected
                .remove(&beside)
                .unwrap_or_else(|| panic!("{beside} is missing"));
            let headers = sample["headers"].as_object().unwrap();
            Sample {
                message: Message {
                    topic: sample["topic"].as_str().unwrap().to_owned(),
                    position: Position {
                        partition: 0,
                        offset: 0,
                    },
                    key: sample["key"].as_str().map(str::to_owned),
                    headers: headers
                        .iter()
                        .map(|(name, value)| (name.clone(), value.as_str().unwrap().into()))
                        .collect(),
                    payload: Some(sample["body"].to_string().into_bytes()),
                    published_ms: None,
                },
                name,
                expected,
            }
        })
        .collect();
    assert!(expected.is_empty(), "without a sample: {expected:?}");
    found
}

/// Compares the schema that the code produces with the published schema of the same version, which has the same `$id`.
///
/// # Panics
/// When no such schema is published, or the change would break an older reader or writer: see [`breaks`].
pub fn assert_compatible(event: &str, schema: &str) {
    let new: Value = serde_json::from_str(schema).unwrap();
    let published = files(event, ".schema.json");
    let old = published
        .values()
        .find(|old| old["$id"] == new["$id"])
        .unwrap_or_else(|| {
            panic!(
                "{} is not published: commit it as test-data/events/{event}.vN.schema.json",
                new["$id"]
            )
        });
    let breaks = breaks(old, &new);
    assert!(
        breaks.is_empty(),
        "a reader or writer of the published {} would break:\n{}\nonly add what is not required, or begin a new version",
        new["$id"],
        breaks.join("\n")
    );
}

/// The changes of a schema that break an older reader or writer.
#[must_use]
pub fn breaks(old: &Value, new: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("", (old, old), (new, new), &mut found);
    found
}

/// The schema itself: follows a `$ref`, and takes the part of an `anyOf` that is not null.
fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        if let Some(target) = schema["$ref"].as_str() {
            schema = root.pointer(target.trim_start_matches('#')).unwrap();
        } else if let Some(choice) = schema["anyOf"].as_array() {
            schema = choice.iter().find(|one| one["type"] != "null").unwrap();
        } else {
            return schema;
        }
    }
}

/// Whether the schema allows null.
fn may_be_null(schema: &Value) -> bool {
    let types = |schema: &Value| match &schema["type"] {
        Value::Array(types) => types.iter().any(|kind| kind == "null"),
        kind => kind == "null",
    };
    types(schema)
        || schema["anyOf"]
            .as_array()
            .is_some_and(|choice| choice.iter().any(types))
}

fn kind(schema: &Value) -> Option<String> {
    match &schema["type"] {
        Value::String(kind) => Some(kind.clone()),
        Value::Array(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).collect();
            kinds
                .iter()
                .find(|kind| **kind != "null")
                .map(|kind| (*kind).to_owned())
        }
        // An enumeration of constants counts as a string.
        _ if schema["oneOf"].is_array() || schema["enum"].is_array() => Some("string".to_owned()),
        _ => None,
    }
}

/// The values of an enumeration.
fn values(schema: &Value) -> Vec<&Value> {
    let listed = schema["enum"].as_array().into_iter().flatten();
    let constants = schema["oneOf"].as_array().into_iter().flatten();
    listed
        .chain(
            constants
                .map(|one| &one["const"])
                .filter(|it| !it.is_null()),
        )
        .collect()
}

fn compare(
    path: &str,
    (old_root, old): (&Value, &Value),
    (new_root, new): (&Value, &Value),
    found: &mut Vec<String>,
) {
    let name = if path.is_empty() { "the body" } else { path };
    // An older reader does not accept null where there was none.
    if may_be_null(new) && !may_be_null(old) {
        found.push(format!("{name} may be null now"));
    }
    let (old, new) = (resolved(old_root, old), resolved(new_root, new));
    if kind(old) != kind(new) {
        found.push(format!("{name} was {:?}, is {:?}", kind(old), kind(new)));
        return;
    }
    let (was, is) = (values(old), values(new));
    for value in was.iter().filter(|value| !is.contains(value)) {
        found.push(format!("{name} can no longer be {value}"));
    }
    for value in is
        .iter()
        .filter(|value| !was.is_empty() && !was.contains(value))
    {
        found.push(format!(
            "{name} can be {value}, which no older reader knows"
        ));
    }
    if old["items"].is_object() {
        compare(
            &format!("{path}[]"),
            (old_root, &old["items"]),
            (new_root, &new["items"]),
            found,
        );
    }
    let none = Map::new();
    let properties = |schema: &'_ Value| schema["properties"].as_object().cloned();
    let (was, is) = (properties(old), properties(new));
    let (was, is) = (was.as_ref().unwrap_or(&none), is.as_ref().unwrap_or(&none));
    let required = |schema: &Value, property: &str| {
        let names = schema["required"].as_array();
        names.is_some_and(|names| names.iter().any(|name| name == property))
    };
    for (property, before) in was {
        let path = format!("{path}.{property}")
            .trim_start_matches('.')
            .to_owned();
        match is.get(property) {
            None => found.push(format!("{path} was removed")),
            Some(after) => compare(&path, (old_root, before), (new_root, after), found),
        }
        // A reader may rely on the property.
        if required(old, property) && !required(new, property) {
            found.push(format!("{path} is no longer required"));
        }
    }
    for property in is.keys() {
        // An older event may lack the property.
        if required(new, property) && !required(old, property) {
            found.push(
                format!("{path}.{property} is newly required")
                    .trim_start_matches('.')
                    .to_owned(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "$defs": {"Part": {"type": "object", "properties": {"colour": {"enum": ["RED"]}}, "required": ["colour"]}},
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "note": {"type": ["string", "null"]},
                "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
                "best": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]}
            },
            "required": ["id"]
        })
    }

    #[track_caller]
    fn found(change: impl Fn(&mut Value)) -> Vec<String> {
        let mut new = schema();
        change(&mut new);
        breaks(&schema(), &new)
    }

    #[test]
    fn a_schema_may_grow_and_say_more() {
        assert!(breaks(&schema(), &schema()).is_empty());
        let grown = found(|new| {
            new["properties"]["more"] = json!({"type": "integer"});
            new["properties"]["id"]["description"] = json!("said better");
        });
        assert!(grown.is_empty(), "{grown:?}");
    }

    #[test]
    fn what_breaks_a_reader_or_a_writer_is_named() {
        let removed = found(|new| {
            new["properties"].as_object_mut().unwrap().remove("note");
        });
        assert_eq!(removed, ["note was removed"]);
        let retyped = found(|new| new["properties"]["id"]["type"] = json!("integer"));
        assert!(retyped[0].starts_with("id was"), "{retyped:?}");
        let required = found(|new| new["required"] = json!(["id", "note"]));
        assert_eq!(required, ["note is newly required"]);
        let optional = found(|new| new["required"] = json!([]));
        assert_eq!(optional, ["id is no longer required"]);
        let nullable = found(|new| new["properties"]["id"]["type"] = json!(["string", "null"]));
        assert_eq!(nullable, ["id may be null now"]);
        let within =
            found(|new| new["$defs"]["Part"]["properties"]["colour"] = json!({"enum": ["BLUE"]}));
        assert!(
            within.contains(&"parts[].colour can no longer be \"RED\"".to_owned()),
            "{within:?}"
        );
        assert!(
            within
                .iter()
                .any(|it| it.starts_with("best.colour can be \"BLUE\"")),
            "{within:?}"
        );
    }
}
