//! Compares two JSON Schemas of an event in both directions. Today's readers get tomorrow's events, and tomorrow's
//! readers read today's events, because Kafka keeps them for ever.
//!
//! Every event that one schema allows must be allowed by the other. The comparison goes keyword by keyword, as JSON
//! Schema 2020-12 defines them, including keywords beside a reference or alternatives. An unknown keyword makes the
//! result negative, and the finding names it and its place. Only parts that are the same on both sides, with everything
//! that they refer to, need not be understood.

#[cfg(test)]
mod tests;
mod values;
mod ways;

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Finding,
    Severity::{Breaking, Safe},
};
use values::{is_apart, is_at_least, kinds, listed, may_be};
use ways::{DEEPEST, Keywords, MEMBERS, keywords, named, types, ways};

/// Keywords that are compared, each by its own rules.
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
/// Keywords whose meaning depends only on their value, not on other keywords beside them.
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
            // What is not understood is found in both directions, but reported once.
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

/// A reason why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Obstacle {
    place: String,
    why: String,
    /// False when the comparison does not know what is allowed there.
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

/// Searches for documents that the written schema allows and the read schema does not.
struct Comparison<'a> {
    written_root: &'a Value,
    read_root: &'a Value,
    found: Vec<Obstacle>,
    /// Members that only the read schema knows. Where the written schema allows unknown members, nobody writes one with
    /// such a name.
    news: BTreeSet<String>,
    /// Pairs whose comparison is in progress. Within it, such a pair may be assumed to be compatible: a schema may
    /// contain itself.
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

    /// Reports that something cannot be compared.
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

    /// Compares every document of the schema `written`, in each way in which it may be written.
    fn every_of(&mut self, written: &Value, read: &Value, place: &str) {
        let is_anything_read =
            read == &Value::Bool(true) || read.is_object() && keywords(read).is_empty();
        // The same text means the same, unless it refers to definitions that may differ.
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

    /// A document that is written in one way can be read if each keyword of the schema `read` allows it.
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
                // `oneOf` refuses a document that matches two alternatives.
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

    /// Whether no document matches two of these schemas of the read side.
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

    /// Compares listed values.
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

/// Whether a schema contains a reference, at any depth.
fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| REFERRING.contains(&name.as_str()) || refers(value)),
        Value::Array(elements) => elements.iter().any(refers),
        _ => false,
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
