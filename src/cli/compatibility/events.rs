//! What a change of an event's JSON Schema means: for readers of today that get events of tomorrow, and for readers of tomorrow that read events of
//! today, since Kafka keeps them for ever.
//!
//! Both must hold: every event that the one schema allows must be allowed by the other. That is looked at keyword by keyword, as JSON Schema 2020-12
//! defines them: those beside a reference or alternatives, too. Where a keyword stands that this does not know, the answer is no, and says which and
//! where; only what is the same on both sides, with all that it refers to, need not be understood.

mod ways;

use std::collections::BTreeSet;

use serde_json::{Number, Value};

use super::{
    Finding,
    Severity::{Breaking, Safe},
};
use ways::{DEEPEST, Keywords, MEMBERS, keywords, named, types, ways};

/// Keywords that are compared, each in its own way.
const COMPARED: [&str; 17] = [
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
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
/// Keywords that mean the same wherever they say the same, whatever stands beside them.
const BY_THEMSELVES: [&str; 12] = [
    "pattern",
    "format",
    "multipleOf",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "dependentRequired",
    "contentEncoding",
    "not",
];
/// Keywords that refer to other schemas.
const REFERRING: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];

/// Compares two schemas of one event.
pub(super) fn compare(old: &Value, new: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut forward = Comparison::new(new, old);
    forward.every_of(new, old, "");
    let mut backward = Comparison::new(old, new);
    backward.every_of(old, new, "");
    for (found, means) in [
        (forward.found, "readers of today do not take such an event"),
        (
            backward.found,
            "events that the log has are not taken any more",
        ),
    ] {
        for obstacle in found {
            let finding = obstacle.finding(means);
            // What is not understood is so in both directions.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    for place in backward.news {
        findings.push(Finding::new(Safe, place, "is new and may be missing"));
    }
    findings
}

/// What keeps a document from being read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    place: String,
    why: String,
    /// If not, nobody knows what is allowed there.
    is_understood: bool,
}

impl Obstacle {
    fn finding(self, means: &str) -> Finding {
        let Self {
            place,
            why,
            is_understood,
        } = self;
        let what = if is_understood {
            format!("{why}: {means}")
        } else {
            format!("{why}: that is not understood here, so it is not taken for compatible")
        };
        Finding::new(Breaking, place, what)
    }
}

/// Looks for what the documents of one schema, the written, may be that the other, the read, does not allow.
struct Comparison<'a> {
    written_root: &'a Value,
    read_root: &'a Value,
    found: Vec<Obstacle>,
    /// Members that the read schema knows and the written one does not. Where other members may be written, nobody writes one of such a name.
    news: BTreeSet<String>,
    /// What is being compared. That one of them holds may be taken for granted within it: a schema may have itself in it.
    under_way: Vec<(Value, Value)>,
}

impl<'a> Comparison<'a> {
    fn new(written_root: &'a Value, read_root: &'a Value) -> Self {
        Self {
            written_root,
            read_root,
            found: Vec::new(),
            news: BTreeSet::new(),
            under_way: Vec::new(),
        }
    }

    fn say(&mut self, place: &str, why: impl Into<String>) {
        self.add(place, why.into(), true);
    }

    /// Says that something cannot be compared.
    fn refuse(&mut self, place: &str, why: impl Into<String>) {
        self.add(place, why.into(), false);
    }

    fn add(&mut self, place: &str, why: String, is_understood: bool) {
        let place = if place.is_empty() { "/" } else { place };
        let obstacle = Obstacle {
            place: place.to_owned(),
            why,
            is_understood,
        };
        if !self.found.contains(&obstacle) {
            self.found.push(obstacle);
        }
    }

    /// Every document of the schema `written` is looked at, in each way in which it may be written.
    fn every_of(&mut self, written: &Value, read: &Value, place: &str) {
        let is_anything_read =
            read == &Value::Bool(true) || read.is_object() && keywords(read).is_empty();
        // The same text means the same, unless it refers to what may be another.
        let is_the_same =
            written == read && (self.written_root == self.read_root || !refers(written));
        let pair = (written.clone(), read.clone());
        if is_anything_read || is_the_same || self.under_way.contains(&pair) {
            return;
        }
        if self.under_way.len() > DEEPEST {
            return self.refuse(place, "is nested too deeply");
        }
        self.under_way.push(pair);
        match ways(written, self.written_root) {
            Ok(ways) => {
                for way in &ways {
                    self.is_read(way, read, place, 0);
                }
            }
            Err(why) => self.refuse(place, why),
        }
        self.under_way.pop();
    }

    /// What is written in one way is read if each keyword of the schema `read` allows it: all of them must hold.
    fn is_read(&mut self, written: &Keywords, read: &Value, place: &str, depth: usize) {
        if depth > DEEPEST {
            return self.refuse(place, "refers to itself without an end");
        }
        let read = match read {
            Value::Bool(true) => return,
            Value::Bool(false) => return self.say(place, "may be there"),
            Value::Object(_) => keywords(read),
            other => return self.refuse(place, format!("has {other} for a schema")),
        };
        if let Some(reference) = read.get("$ref") {
            match named(reference, self.read_root) {
                Ok(target) => self.is_read(written, target, place, depth + 1),
                Err(why) => self.refuse(place, why),
            }
        }
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let schemas = match read.get(keyword) {
                None => continue,
                Some(Value::Array(schemas)) => schemas,
                Some(_) => {
                    self.refuse(place, format!("has {keyword} without a list"));
                    continue;
                }
            };
            match keyword {
                "allOf" => {
                    for one in schemas {
                        self.is_read(written, one, place, depth + 1);
                    }
                }
                // A document that fits two of them is refused by `oneOf`.
                "oneOf" if !self.are_apart(schemas) => self.refuse(
                    place,
                    "has oneOf with alternatives that neither types nor constants tell apart",
                ),
                _ => self.is_one_of(written, schemas, place, depth),
            }
        }
        self.types(written, &read, place);
        self.members(written, &read, place);
        self.items(written, &read, place);
        self.bounds(written, &read, place);
        self.values(written, &read, place);
        for (keyword, value) in &read {
            let name = keyword.as_str();
            if COMPARED.contains(&name) {
                continue;
            }
            if !BY_THEMSELVES.contains(&name) || refers(value) {
                self.refuse(place, format!("has the keyword {name}"));
            } else if written.get(name) != Some(value) {
                self.say(
                    place,
                    format!("{name} is {value}, which is not known to hold"),
                );
            }
        }
    }

    fn is_one_of(&mut self, written: &Keywords, read: &[Value], place: &str, depth: usize) {
        let mut not_understood = Vec::new();
        for one in read {
            let mut attempt = Comparison::new(self.written_root, self.read_root);
            attempt.under_way.clone_from(&self.under_way);
            attempt.is_read(written, one, place, depth + 1);
            if attempt.found.is_empty() {
                self.news.extend(attempt.news);
                return;
            }
            let failed = attempt.found.into_iter();
            not_understood.extend(failed.filter(|it| !it.is_understood));
        }
        let shown = match written.get("const") {
            Some(constant) => short(constant),
            None => short(&Value::Object(written.clone())),
        };
        self.say(place, format!("may be {shown}"));
        for obstacle in not_understood {
            self.refuse(&obstacle.place, obstacle.why);
        }
    }

    /// Whether no document is of two of these schemas of the read side.
    fn are_apart(&self, schemas: &[Value]) -> bool {
        let all: Result<Vec<Vec<Keywords>>, String> = schemas
            .iter()
            .map(|schema| ways(schema, self.read_root))
            .collect();
        let Ok(all) = all else { return false };
        all.iter().enumerate().all(|(at, these)| {
            let mut later = all.iter().skip(at + 1).flatten();
            later.all(|other| these.iter().all(|this| is_apart(this, other)))
        })
    }

    fn types(&mut self, written: &Keywords, read: &Keywords, place: &str) {
        let Some(named) = read.get("type") else {
            return;
        };
        let Some(allowed) = types(named) else {
            return self.refuse(place, format!("has type {named}"));
        };
        let Some(may) = kinds(written) else {
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

    fn members(&mut self, written: &Keywords, read: &Keywords, place: &str) {
        if !may_be(written, "object") {
            return;
        }
        let required = |schema: &Keywords| -> BTreeSet<String> {
            let names = schema.get("required").and_then(Value::as_array);
            let names = names.into_iter().flatten().filter_map(Value::as_str);
            names.map(str::to_owned).collect()
        };
        for name in required(read).difference(&required(written)) {
            self.say(&format!("{place}/{name}"), "may be missing");
        }
        if !MEMBERS.iter().any(|keyword| read.contains_key(*keyword)) {
            return;
        }
        if written.contains_key("patternProperties") {
            return self.refuse(place, "has the keyword patternProperties");
        }
        let others = |schema: &Keywords| {
            let others = schema.get("additionalProperties");
            others.cloned().unwrap_or(Value::Bool(true))
        };
        let (our_others, their_others) = (others(written), others(read));
        match (&our_others, &their_others) {
            (Value::Bool(false), _) | (_, Value::Bool(true)) => {}
            (Value::Bool(true), _) | (_, Value::Bool(false)) => {
                self.say(place, "may have members that are not listed");
            }
            (ours, theirs) => self.every_of(ours, theirs, &format!("{place}/*")),
        }
        let members = |schema: &Keywords| {
            let members = schema.get("properties").and_then(Value::as_object);
            members.cloned().unwrap_or_default()
        };
        let (ours, theirs) = (members(written), members(read));
        for (name, of_written) in &ours {
            let place = format!("{place}/{name}");
            let of_read = theirs.get(name).unwrap_or(&their_others);
            if of_read == &Value::Bool(false) {
                self.say(&place, "may be there");
            } else {
                self.every_of(of_written, of_read, &place);
            }
        }
        for (name, of_read) in theirs.iter().filter(|(name, _)| !ours.contains_key(*name)) {
            let place = format!("{place}/{name}");
            if our_others.is_boolean() {
                self.news.insert(place);
            } else {
                self.every_of(&our_others, of_read, &place);
            }
        }
    }

    fn items(&mut self, written: &Keywords, read: &Keywords, place: &str) {
        let Some(of_read) = read.get("items") else {
            return;
        };
        if !may_be(written, "array") {
            return;
        }
        if written.contains_key("prefixItems") {
            return self.refuse(place, "has the keyword prefixItems");
        }
        match written.get("items") {
            Some(of_written) => self.every_of(of_written, of_read, &format!("{place}/*")),
            None => self.say(place, "may have items of any kind"),
        }
    }

    fn bounds(&mut self, written: &Keywords, read: &Keywords, place: &str) {
        for (keyword, is_lower) in [
            ("minimum", true),
            ("minLength", true),
            ("minItems", true),
            ("maximum", false),
            ("maxLength", false),
            ("maxItems", false),
        ] {
            let bound = match read.get(keyword) {
                None => continue,
                Some(Value::Number(bound)) => bound,
                Some(other) => {
                    self.refuse(place, format!("has {keyword} {other}"));
                    continue;
                }
            };
            let ours = match written.get(keyword) {
                Some(Value::Number(ours)) => Some(ours),
                _ => None,
            };
            let holds = ours.is_some_and(|ours| {
                if is_lower {
                    is_at_least(ours, bound)
                } else {
                    is_at_least(bound, ours)
                }
            });
            if !holds {
                let ours = ours.map_or("no".to_owned(), ToString::to_string);
                self.say(
                    place,
                    format!("has {ours} {keyword}, where {bound} is asked for"),
                );
            }
        }
    }

    /// Values that are listed.
    fn values(&mut self, written: &Keywords, read: &Keywords, place: &str) {
        for keyword in ["const", "enum"] {
            let allowed = match read.get(keyword) {
                None => continue,
                Some(constant) if keyword == "const" => vec![constant.clone()],
                Some(Value::Array(values)) => values.clone(),
                Some(_) => {
                    self.refuse(place, format!("has {keyword} without a list"));
                    continue;
                }
            };
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
}

/// Whether there is a reference in a schema, at any depth.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| REFERRING.contains(&name.as_str()) || refers(value)),
        Value::Array(elements) => elements.iter().any(refers),
        _ => false,
    }
}

/// Whether nothing can be written in both ways.
fn is_apart(one: &Keywords, other: &Keywords) -> bool {
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

/// The types of what may be written; `None` where it may be of any.
fn kinds(schema: &Keywords) -> Option<BTreeSet<String>> {
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
        // 1.0 is an integer, too.
        Value::Number(number) if number.as_f64().is_some_and(|it| it.fract() == 0.0) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn may_be(schema: &Keywords, kind: &str) -> bool {
    kinds(schema).is_none_or(|kinds| kinds.contains(kind))
}

fn listed(schema: &Keywords) -> Option<Vec<Value>> {
    if let Some(value) = schema.get("const") {
        return Some(vec![value.clone()]);
    }
    schema.get("enum").and_then(Value::as_array).cloned()
}

fn is_at_least(number: &Number, bound: &Number) -> bool {
    match (number.as_i64(), bound.as_i64()) {
        (Some(number), Some(bound)) => number >= bound,
        _ => number
            .as_f64()
            .zip(bound.as_f64())
            .is_some_and(|(number, bound)| number >= bound),
    }
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
    fn the_schemas_of_the_program_are_compatible_with_themselves_when_all_of_them_is_compared() {
        for text in [
            include_str!("../../../schema/events/customer-change-event.v1.json"),
            include_str!("../../../schema/events/customer-change-event.v2.json"),
            include_str!("../../../schema/events/order-change-event.v1.json"),
        ] {
            let schema: Value = serde_json::from_str(text).unwrap_or_default();
            assert!(schema["properties"].is_object());
            // With another title it is not the same text, and references may name something else.
            let mut other = schema.clone();
            other["title"] = json!("Another title");
            assert_eq!(compare(&schema, &other), []);
        }
    }

    /// Where a change of the one member of an event breaks; its definitions are `Text` and `Other`.
    fn of_member(old: Value, new: Value) -> Vec<(String, String)> {
        let event = |member: Value| {
            json!({
                "type": "object",
                "properties": { "it": member },
                "$defs": {
                    "Text": { "type": "string" },
                    "Other": { "type": "object", "properties": { "a": { "type": "string" } } },
                },
            })
        };
        let found = compare(&event(old), &event(new)).into_iter();
        let breaking = found.filter(|it| it.severity == Breaking);
        breaking.map(|it| (it.place, it.what)).collect()
    }

    #[test]
    fn what_stands_beside_a_reference_is_compared() {
        let bounded = json!({ "$ref": "#/$defs/Text", "maxLength": 3 });
        let free = json!({ "$ref": "#/$defs/Text", "description": "Says nothing." });
        let found = of_member(free.clone(), bounded.clone());
        let what = "has no maxLength, where 3 is asked for: events that the log has are not taken any more";
        assert_eq!(found, [("/it".to_owned(), what.to_owned())]);
        assert_eq!(of_member(bounded.clone(), free).len(), 1);
        let wider = json!({ "$ref": "#/$defs/Text", "maxLength": 4 });
        assert_eq!(of_member(bounded, wider).len(), 1);
    }

    #[test]
    fn what_stands_beside_alternatives_is_compared() {
        for keyword in ["anyOf", "oneOf"] {
            let alternatives = json!([{ "$ref": "#/$defs/Other" }, { "type": "null" }]);
            let free = json!({ keyword: alternatives });
            let mut demanding = free.clone();
            demanding["required"] = json!(["a"]);
            let found = of_member(free.clone(), demanding.clone());
            assert_eq!(found.len(), 1, "{keyword}: {found:?}");
            assert_eq!(found[0].0, "/it/a", "{keyword}");
            // What is written is known to have it.
            let mut inner = free.clone();
            inner[keyword][0]["required"] = json!(["a"]);
            assert!(of_member(demanding, inner).is_empty(), "{keyword}");
        }
    }

    #[test]
    fn alternatives_beside_alternatives_must_all_hold() {
        let one = json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] });
        let mut two = one.clone();
        two["oneOf"] = json!([{ "const": "a" }, { "const": "b" }]);
        let found = of_member(one, two.clone());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|(place, _)| place == "/it"), "{found:?}");
        assert!(of_member(two, json!({ "enum": ["a", "b"] })).is_empty());
    }

    #[test]
    fn a_keyword_that_is_not_understood_is_named_with_its_place_and_never_passed() {
        let refused = |old: Value, new: Value, said: &str| {
            let found = of_member(old, new);
            let (place, what) = &found[0];
            assert_eq!(place, "/it", "{found:?}");
            assert!(what.starts_with(said), "{said}: {found:?}");
            assert!(what.contains("not understood"), "{found:?}");
        };
        let unknown = |keyword: &str| format!("has the keyword {keyword}: ");
        let text =
            || json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/Text" } } });
        for keyword in [
            "patternProperties",
            "unevaluatedProperties",
            "if",
            "dependentSchemas",
        ] {
            let mut new = text();
            new[keyword] = json!({ "x": false });
            refused(text(), new, &unknown(keyword));
        }
        // The same words mean something else beside others, and where what they refer to may be another.
        let with = |keyword: &str, value: Value, more: Value| {
            let mut schema = text();
            schema[keyword] = value;
            schema["properties"]["b"] = more;
            schema
        };
        for (keyword, value) in [
            ("unevaluatedProperties", json!(false)),
            ("not", json!({ "$ref": "#/$defs/Other" })),
        ] {
            let old = with(keyword, value.clone(), json!(true));
            let new = with(keyword, value, json!({ "type": "string" }));
            refused(old, new, &unknown(keyword));
        }
        let array = |items: Value| json!({ "prefixItems": [{ "type": "null" }], "items": items });
        let string = || json!({ "type": "string" });
        refused(array(json!(true)), array(string()), &unknown("prefixItems"));
        refused(string(), json!({ "$ref": "other.json" }), "has $ref");
        let overlapping = json!({ "oneOf": [{ "type": "string" }, { "minLength": 3 }] });
        refused(overlapping, string(), "has oneOf");
    }

    #[test]
    fn what_is_the_same_with_all_that_it_refers_to_need_not_be_understood() {
        let odd = json!({ "type": "object", "patternProperties": { "^x": { "type": "string" } } });
        let mut other = odd.clone();
        other["description"] = json!("Says nothing.");
        assert!(of_member(odd.clone(), odd.clone()).is_empty());
        assert!(!of_member(odd, other).is_empty());
    }

    #[test]
    fn constants_are_of_the_type_that_they_are_of() {
        let text = json!({ "type": "string" });
        assert_eq!(of_member(json!({ "const": 5 }), text.clone()).len(), 2);
        assert_eq!(of_member(json!({ "const": "a" }), text).len(), 1);
    }

    #[test]
    fn members_that_are_not_listed_are_compared_with_those_that_are() {
        let open = |more: Value| json!({ "type": "object", "additionalProperties": more });
        let found = of_member(
            open(json!({ "type": "string" })),
            open(json!({ "type": "integer" })),
        );
        assert!(found.iter().all(|(place, _)| place == "/it/*"));
        assert_eq!(found.len(), 2, "{found:?}");
        let mut listed = open(json!({ "type": "string" }));
        listed["properties"] = json!({ "a": { "type": "integer" } });
        let found = of_member(open(json!({ "type": "string" })), listed);
        assert!(found.iter().all(|(place, _)| place == "/it/a"), "{found:?}");
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_schema_that_has_itself_in_it_is_compared_to_its_end() {
        let tree = |title: &str, leaf: &str| {
            json!({
                "title": title,
                "type": "object",
                "properties": { "leaf": { "type": leaf }, "next": { "$ref": "#" } },
            })
        };
        assert_eq!(compare(&tree("a", "string"), &tree("b", "string")), []);
        let found = compare(&tree("a", "string"), &tree("a", "integer"));
        let places: BTreeSet<&str> = found.iter().map(|it| it.place.as_str()).collect();
        assert_eq!(places, BTreeSet::from(["/leaf", "/next/leaf"]));
    }
}
