//! Compares who may see a type or a field, by the directives on which routers decide. If they require more than before,
//! clients are locked out. If they require less, more people see others' data.

use std::collections::BTreeSet;

use apollo_compiler::{
    Schema,
    ast::{Directive, Value},
};

use super::super::{
    Finding,
    Severity::{Breaking, Dangerous},
};
use super::fields;

/// Alternative requirements. A caller must have all names of at least one set.
type Ways = BTreeSet<BTreeSet<String>>;

/// A directive that requires something of callers that see a type or a field.
struct Asking {
    name: &'static str,
    /// The argument that holds the alternatives. `None` if every authenticated caller may see it.
    argument: Option<&'static str>,
}

/// As defined in Apollo Federation since versions 2.5 and 2.6.
const ASKING: [Asking; 3] = [
    Asking {
        name: "authenticated",
        argument: None,
    },
    Asking {
        name: "requiresScopes",
        argument: Some("scopes"),
    },
    Asking {
        name: "policy",
        argument: Some("policies"),
    },
];
/// The prefix of a directive that a subgraph has not imported.
const NOT_IMPORTED: &str = "federation__";

/// Compares the requirements of two schemas, for everything that both contain.
pub(super) fn compare(old: &Schema, new: &Schema) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, was) in &old.types {
        let Some(is) = new.types.get(name) else {
            continue;
        };
        for asking in &ASKING {
            let before = asking.of(was.directives().iter().map(AsRef::as_ref));
            let now = asking.of(is.directives().iter().map(AsRef::as_ref));
            findings.extend(asking.compared(name, before, now));
        }
        for (field, was) in fields(was).into_iter().flatten() {
            let Some(is) = fields(is).and_then(|fields| fields.get(field)) else {
                continue;
            };
            for asking in &ASKING {
                let before = asking.of(was.directives.iter().map(AsRef::as_ref));
                let now = asking.of(is.directives.iter().map(AsRef::as_ref));
                findings.extend(asking.compared(&format!("{name}.{field}"), before, now));
            }
        }
    }
    findings
}

impl Asking {
    /// The alternatives that these directives require. `None` if this directive is not among them.
    fn of<'a>(&self, mut directives: impl Iterator<Item = &'a Directive>) -> Option<Ways> {
        let found = directives.find(|directive| {
            let name = directive.name.as_str();
            name.strip_prefix(NOT_IMPORTED).unwrap_or(name) == self.name
        })?;
        let Some(argument) = self.argument else {
            return Some(Ways::from([BTreeSet::new()]));
        };
        let listed = found.specified_argument_by_name(argument);
        Some(listed.map(|listed| ways(listed)).unwrap_or_default())
    }

    fn compared(&self, place: &str, before: Option<Ways>, now: Option<Ways>) -> Option<Finding> {
        let name = self.name;
        let (severity, what) = match (before, now) {
            (None, None) => return None,
            (None, Some(_)) => (
                Breaking,
                format!("asks for @{name} now: clients without it are shut out"),
            ),
            (Some(_), None) => (
                Dangerous,
                format!("does not ask for @{name} any more: more people may see it"),
            ),
            (Some(before), Some(now)) => {
                let (was, is) = (shown(&before), shown(&now));
                if !lets_in(&now, &before) {
                    let what = format!(
                        "asks by @{name} for {is} where {was} was enough: clients are shut out"
                    );
                    (Breaking, what)
                } else if !lets_in(&before, &now) {
                    let what = format!(
                        "asks by @{name} for {is} where {was} was needed: more people may see it"
                    );
                    (Dangerous, what)
                } else {
                    return None;
                }
            }
        };
        Some(Finding::new(severity, place, what))
    }
}

/// Whether every caller that satisfies one of `others` also satisfies one of `these`.
fn lets_in(these: &Ways, others: &Ways) -> bool {
    let is_open = |other: &BTreeSet<String>| these.iter().any(|this| this.is_subset(other));
    others.iter().all(is_open)
}

/// A list of lists of names. A single value stands for a list of one (GraphQL, 3.11, Input Coercion).
fn ways(listed: &Value) -> Ways {
    match listed.as_list() {
        Some(listed) => listed.iter().map(|way| names(way)).collect(),
        None => Ways::from([names(listed)]),
    }
}

fn names(way: &Value) -> BTreeSet<String> {
    match way.as_list() {
        Some(listed) => listed.iter().map(|value| name(value)).collect(),
        None => BTreeSet::from([name(way)]),
    }
}

fn name(value: &Value) -> String {
    let text = value.as_str().map(str::to_owned);
    text.unwrap_or_else(|| value.to_string())
}

/// `a and b, or c`.
fn shown(ways: &Ways) -> String {
    let together = |way: &BTreeSet<String>| -> String {
        let names: Vec<&str> = way.iter().map(String::as_str).collect();
        names.join(" and ")
    };
    let shown: Vec<String> = ways.iter().map(together).collect();
    if shown.is_empty() {
        return "what nobody has".to_owned();
    }
    shown.join(", or ")
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::{schema_of, tests::found_in};
    use super::*;

    const OLD: &str = "
        type Query { person: Person @requiresScopes(scopes: [[\"read\"], [\"self\"]]) open: Int }
        type Person @authenticated { name: String mail: String @policy(policies: [[\"staff\", \"adult\"]]) }
        interface Named { name: String }";

    #[track_caller]
    fn found(from: &str, to: &str) -> Vec<(Severity, String)> {
        found_in(OLD, (from, to), |old, new| {
            compare(&schema_of(old), &schema_of(new))
        })
    }

    #[test]
    fn asking_for_more_than_before_shuts_clients_out() {
        for (from, to, place) in [
            ("open: Int", "open: Int @authenticated", "Query.open"),
            (
                "open: Int",
                "open: Int @federation__authenticated",
                "Query.open",
            ),
            (
                "open: Int",
                "open: Int @requiresScopes(scopes: [[\"read\"]])",
                "Query.open",
            ),
            (
                "open: Int",
                "open: Int @policy(policies: [[\"staff\"]])",
                "Query.open",
            ),
            ("interface Named", "interface Named @authenticated", "Named"),
            (", [\"self\"]", "", "Query.person"),
            ("[\"read\"]", "[\"read\", \"write\"]", "Query.person"),
            (
                "\"staff\", \"adult\"",
                "\"staff\", \"adult\", \"awake\"",
                "Person.mail",
            ),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Breaking, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn asking_for_less_than_before_lets_more_people_see_it() {
        for (from, to, place) in [
            (" @authenticated", "", "Person"),
            (
                " @policy(policies: [[\"staff\", \"adult\"]])",
                "",
                "Person.mail",
            ),
            (
                "[\"read\"], [\"self\"]",
                "[\"read\"], [\"self\"], [\"other\"]",
                "Query.person",
            ),
            ("\"staff\", \"adult\"", "\"staff\"", "Person.mail"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Dangerous, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn the_same_ways_in_written_otherwise_are_no_change() {
        for (from, to) in [
            ("[\"read\"], [\"self\"]", "[\"self\"], [\"read\"]"),
            ("[\"read\"], [\"self\"]", "\"read\", [\"self\"]"),
            ("@authenticated", "@federation__authenticated"),
        ] {
            assert!(found(from, to).is_empty(), "{from} to {to}");
        }
    }

    #[test]
    fn what_is_new_or_gone_shuts_nobody_out() {
        assert!(found(" open: Int", " more: Int @authenticated").is_empty());
    }

    #[test]
    fn the_ways_in_are_told() {
        let new = OLD.replace("[\"read\"], [\"self\"]", "[\"read\", \"write\"]");
        let findings = compare(&schema_of(OLD), &schema_of(&new));
        let told = "asks by @requiresScopes for read and write where read, or self was enough: clients are shut out";
        assert_eq!(findings, [Finding::new(Breaking, "Query.person", told)]);
    }
}
