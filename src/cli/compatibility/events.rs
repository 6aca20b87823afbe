//! What a change of an event's JSON Schema means: for readers of today that get events of tomorrow, and for readers of tomorrow that read events of
//! today, since Kafka keeps them for ever.
//!
//! Both must hold: every event that the one schema allows must be allowed by the other. That is looked at keyword by keyword, as JSON Schema 2020-12
//! defines them; where a keyword that this does not know differs, the answer is no.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Finding,
    Severity::{Breaking, Safe},
};

/// What says nothing of what is valid.
const ANNOTATIONS: [&str; 11] = [
    "$id",
    "$schema",
    "$defs",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// References that are followed one behind the other: a schema may refer to itself.
const DEEPEST: usize = 64;

/// Compares two schemas of one event.
pub(super) fn compare(old: &Value, new: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut forward = Comparison::new(new, old);
    forward.every_of(new, old, "", 0);
    for (place, why) in forward.found {
        let what = format!("{why}: readers of today do not take such an event");
        findings.push(Finding::new(Breaking, place, what));
    }
    let mut backward = Comparison::new(old, new);
    backward.every_of(old, new, "", 0);
    for (place, why) in backward.found {
        let what = format!("{why}: events that the log has are not taken any more");
        findings.push(Finding::new(Breaking, place, what));
    }
    for place in backward.news {
        findings.push(Finding::new(Safe, place, "is new and may be missing"));
    }
    findings
}

/// Looks for what the documents of one schema, the written, may be that the other, the read, does not allow.
struct Comparison<'a> {
    written_root: &'a Value,
    read_root: &'a Value,
    found: Vec<(String, String)>,
    /// Members that the read schema knows and the written one does not.
    news: Vec<String>,
}

impl<'a> Comparison<'a> {
    fn new(written_root: &'a Value, read_root: &'a Value) -> Self {
        Self {
            written_root,
            read_root,
            found: Vec::new(),
            news: Vec::new(),
        }
    }

    fn say(&mut self, place: &str, why: impl Into<String>) {
        let place = if place.is_empty() { "/" } else { place };
        self.found.push((place.to_owned(), why.into()));
    }

    fn every_of(&mut self, written: &Value, read: &Value, place: &str, depth: usize) {
        if depth > DEEPEST {
            return;
        }
        let written = resolved(written, self.written_root);
        let read = resolved(read, self.read_root);
        if read == &Value::Bool(true) || without_annotations(read).is_empty() {
            return;
        }
        if alternatives(written).is_some() || alternatives(read).is_some() {
            self.alternatives(written, read, place, depth);
            return;
        }
        let (w, r) = (without_annotations(written), without_annotations(read));
        self.types(&w, &r, place);
        self.members(&w, &r, place, depth);
        if let Some(of_read) = r.get("items") {
            match w.get("items") {
                Some(of_written) => {
                    self.every_of(of_written, of_read, &format!("{place}/*"), depth + 1);
                }
                None if may_be(&w, "array") => self.say(place, "may have items of any kind"),
                None => {}
            }
        }
        self.bounds(&w, &r, place);
        for (keyword, value) in &r {
            let is_known = [
                "type",
                "properties",
                "required",
                "additionalProperties",
                "items",
                "minimum",
                "maximum",
                "minLength",
                "maxLength",
                "minItems",
                "maxItems",
                "const",
                "enum",
            ];
            if !is_known.contains(&keyword.as_str()) && w.get(keyword) != Some(value) {
                self.say(
                    place,
                    format!("{keyword} is {value}, which is not known to hold"),
                );
            }
        }
        self.values(&w, &r, place);
    }

    /// One of several: each that may be written must be one that is read.
    fn alternatives(&mut self, written: &Value, read: &Value, place: &str, depth: usize) {
        let ours = alternatives(written).unwrap_or_else(|| vec![written.clone()]);
        let theirs = alternatives(read).unwrap_or_else(|| vec![read.clone()]);
        for one in &ours {
            let is_read = theirs.iter().any(|other| {
                let mut attempt = Comparison::new(self.written_root, self.read_root);
                attempt.every_of(one, other, place, depth + 1);
                let is_read = attempt.found.is_empty();
                if is_read {
                    self.news.extend(attempt.news);
                }
                is_read
            });
            if !is_read {
                let shown = resolved(one, self.written_root);
                let shown = shown.get("const").unwrap_or(shown);
                self.say(place, format!("may be {}", short(shown)));
            }
        }
    }

    fn types(&mut self, written: &Map<String, Value>, read: &Map<String, Value>, place: &str) {
        let Some(allowed) = types(read) else { return };
        let Some(may) = types(written) else {
            // A constant has the type that it has.
            if written.contains_key("const") || written.contains_key("enum") {
                return;
            }
            return self.say(place, "may be of any type");
        };
        for kind in &may {
            let is_allowed =
                allowed.contains(kind) || (kind == "integer" && allowed.contains("number"));
            if !is_allowed {
                self.say(place, format!("may be {kind}"));
            }
        }
    }

    fn members(
        &mut self,
        written: &Map<String, Value>,
        read: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) {
        if !may_be(written, "object") {
            return;
        }
        let required = |schema: &Map<String, Value>| -> BTreeSet<String> {
            let names = schema.get("required").and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        for name in required(read).difference(&required(written)) {
            self.say(&format!("{place}/{name}"), "may be missing");
        }
        let others = |schema: &Map<String, Value>| {
            let others = schema.get("additionalProperties");
            others.cloned().unwrap_or(Value::Bool(true))
        };
        if others(read) != Value::Bool(true) && others(read) != others(written) {
            self.say(place, "may have members that are not listed");
        }
        let empty = Map::new();
        let members = |schema: &'_ Map<String, Value>| {
            let members = schema.get("properties").and_then(Value::as_object);
            members.unwrap_or(&empty).clone()
        };
        let (ours, theirs) = (members(written), members(read));
        for (name, of_written) in &ours {
            let place = format!("{place}/{name}");
            match theirs.get(name) {
                Some(of_read) => self.every_of(of_written, of_read, &place, depth + 1),
                None if read.get("additionalProperties") == Some(&Value::Bool(false)) => {
                    self.say(&place, "may be there");
                }
                None => {}
            }
        }
        let news = theirs.keys().filter(|name| !ours.contains_key(*name));
        self.news.extend(news.map(|name| format!("{place}/{name}")));
    }

    fn bounds(&mut self, written: &Map<String, Value>, read: &Map<String, Value>, place: &str) {
        for (keyword, is_lower) in [
            ("minimum", true),
            ("minLength", true),
            ("minItems", true),
            ("maximum", false),
            ("maxLength", false),
            ("maxItems", false),
        ] {
            let Some(bound) = read.get(keyword).and_then(Value::as_f64) else {
                continue;
            };
            let ours = written.get(keyword).and_then(Value::as_f64);
            let holds = ours.is_some_and(|ours| {
                if is_lower {
                    ours >= bound
                } else {
                    ours <= bound
                }
            });
            if !holds {
                let ours = ours.map_or("no".to_owned(), |ours| ours.to_string());
                self.say(
                    place,
                    format!("has {ours} {keyword}, where {bound} is asked for"),
                );
            }
        }
    }

    /// Values that are listed.
    fn values(&mut self, written: &Map<String, Value>, read: &Map<String, Value>, place: &str) {
        let Some(allowed) = listed(read) else { return };
        match listed(written) {
            Some(ours) => {
                for value in ours.iter().filter(|value| !allowed.contains(value)) {
                    self.say(place, format!("may be {}", short(value)));
                }
            }
            None => self.say(place, "may be more than what is listed"),
        }
    }
}

/// What a reference names, however often it is one; itself if it is none, or names nothing.
fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let mut at = schema;
    for _ in 0..DEEPEST {
        let Some(name) = at.get("$ref").and_then(Value::as_str) else {
            break;
        };
        let Some(named) = name.strip_prefix('#').and_then(|path| root.pointer(path)) else {
            break;
        };
        at = named;
    }
    at
}

fn without_annotations(schema: &Value) -> Map<String, Value> {
    let members = schema.as_object().into_iter().flatten();
    members
        .filter(|(name, _)| !ANNOTATIONS.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn alternatives(schema: &Value) -> Option<Vec<Value>> {
    let listed = schema.get("anyOf").or_else(|| schema.get("oneOf"))?;
    listed.as_array().cloned()
}

fn types(schema: &Map<String, Value>) -> Option<BTreeSet<String>> {
    match schema.get("type")? {
        Value::String(one) => Some(BTreeSet::from([one.clone()])),
        Value::Array(several) => {
            let names = several.iter().filter_map(Value::as_str);
            Some(names.map(str::to_owned).collect())
        }
        _ => None,
    }
}

fn may_be(schema: &Map<String, Value>, kind: &str) -> bool {
    types(schema).is_none_or(|types| types.contains(kind))
}

fn listed(schema: &Map<String, Value>) -> Option<Vec<Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value.clone()]);
    }
    schema.get("enum").and_then(Value::as_array).cloned()
}

fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn old() -> Value {
        json!({
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "revision": { "type": "integer", "minimum": 1 },
                "note": { "type": ["string", "null"] },
                "kind": { "$ref": "#/$defs/Kind" },
                "tags": { "type": "array", "items": { "type": "string" } },
            },
            "required": ["id", "revision"],
            "$defs": { "Kind": { "oneOf": [
                { "type": "string", "const": "MADE", "description": "First." },
                { "type": "string", "const": "GONE" },
            ] } },
        })
    }

    fn breaks(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut new = old();
        change(&mut new);
        let found = compare(&old(), &new).into_iter();
        let breaking = found.filter(|it| it.severity == Breaking);
        breaking.map(|it| it.place).collect()
    }

    #[test]
    fn nothing_changed_is_nothing_found() {
        assert_eq!(compare(&old(), &old()), []);
    }

    #[test]
    fn what_one_side_would_not_take_breaks() {
        assert_eq!(breaks(|it| it["required"] = json!(["id"])), ["/revision"]);
        let required = json!(["id", "revision", "note"]);
        assert_eq!(breaks(|it| it["required"] = required), ["/note"]);
        let number = json!({ "type": "integer" });
        assert_eq!(breaks(|it| it["properties"]["id"] = number).len(), 2);
        let text = json!({ "type": "string" });
        assert_eq!(breaks(|it| it["properties"]["note"] = text), ["/note"]);
        assert_eq!(
            breaks(|it| it["properties"]["revision"]["minimum"] = json!(0)),
            ["/revision"]
        );
        let third = json!([{ "const": "MADE" }, { "const": "GONE" }, { "const": "SOLD" }]);
        assert_eq!(breaks(|it| it["$defs"]["Kind"]["oneOf"] = third), ["/kind"]);
        let items = json!({ "type": "object" });
        let items = breaks(|it| it["properties"]["tags"]["items"] = items);
        assert_eq!(items, ["/tags/*", "/tags/*"]);
        let pattern = json!("^[a-z]+$");
        assert_eq!(
            breaks(|it| it["properties"]["id"]["pattern"] = pattern),
            ["/id"]
        );
        assert_eq!(
            breaks(|it| it["additionalProperties"] = json!(false)),
            ["/"]
        );
    }

    #[test]
    fn a_member_that_may_be_missing_is_safe() {
        let mut new = old();
        new["properties"]["more"] = json!({ "type": "integer" });
        new["title"] = json!("Another title");
        let expected = Finding::new(Safe, "/more", "is new and may be missing");
        assert_eq!(compare(&old(), &new), [expected]);
    }

    #[test]
    fn the_schemas_of_the_program_are_compatible_with_themselves() {
        let text = tandem_accounts::event_json_schema();
        let schema: Value = serde_json::from_str(&text).unwrap_or_default();
        assert!(schema["properties"].is_object());
        assert_eq!(compare(&schema, &schema), []);
    }
}
