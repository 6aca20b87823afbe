//! Compares the definitions of directives, from the view of documents that use them.

use apollo_compiler::{Schema, ast::DirectiveDefinition};

use super::super::{
    Finding,
    Severity::{Breaking, Dangerous, Safe},
};
use super::{is_machinery, is_within};

/// Compares the directives that two schemas define.
pub(super) fn compare(old: &Schema, new: &Schema) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, was) in &old.directive_definitions {
        if is_of_composition(name) {
            continue;
        }
        match new.directive_definitions.get(name) {
            // Every server knows the directives of the specification, whether or not its schema lists them.
            Some(is) if was.is_built_in() || is.is_built_in() => {}
            Some(is) => findings.extend(changes(was, is)),
            None => findings.push(Finding::new(
                Breaking,
                format!("@{name}"),
                "was removed: documents that use it are refused",
            )),
        }
    }
    for name in new.directive_definitions.keys() {
        if !is_of_composition(name) && !old.directive_definitions.contains_key(name) {
            findings.push(Finding::new(Safe, format!("@{name}"), "is new"));
        }
    }
    findings
}

fn is_of_composition(name: &str) -> bool {
    is_machinery(name) || matches!(name, "link" | "core")
}

fn changes(was: &DirectiveDefinition, is: &DirectiveDefinition) -> Vec<Finding> {
    let place = format!("@{}", was.name);
    let mut findings = Vec::new();
    if was.repeatable && !is.repeatable {
        let what = "may stand at one place only once now";
        findings.push(Finding::new(Breaking, &*place, what));
    }
    for location in &was.locations {
        if !is.locations.contains(location) {
            let what = format!("may not stand at {location} any more");
            findings.push(Finding::new(Breaking, &*place, what));
        }
    }
    for argument in &was.arguments {
        let place = format!("{place}.{}", argument.name);
        let Some(now) = is.argument_by_name(&argument.name) else {
            let what = "was removed: who gives it is refused";
            findings.push(Finding::new(Breaking, place, what));
            continue;
        };
        if argument.ty != now.ty {
            let holds = is_within(&argument.ty, &now.ty);
            let severity = if holds { Safe } else { Breaking };
            let what = format!("was {} and is {}", argument.ty, now.ty);
            findings.push(Finding::new(severity, &*place, what));
        }
        if argument.default_value != now.default_value {
            let (severity, what) = if now.is_required() && !argument.is_required() {
                (Breaking, "must be given now")
            } else {
                (
                    Dangerous,
                    "has another default: who does not give it gets something else",
                )
            };
            findings.push(Finding::new(severity, place, what));
        }
    }
    for argument in &is.arguments {
        if was.argument_by_name(&argument.name).is_none() {
            let (severity, what) = if argument.is_required() {
                (Breaking, "is new and must be given")
            } else {
                (Safe, "is new and may be left out")
            };
            let place = format!("{place}.{}", argument.name);
            findings.push(Finding::new(severity, place, what));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::super::Severity;
    use super::super::{schema_of, tests::found_in};
    use super::*;

    const OLD: &str = "
        directive @now(at: String!, zone: String = \"UTC\") repeatable on FIELD | FRAGMENT_SPREAD
        directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
        directive @link(url: String) repeatable on SCHEMA
        directive @join__field on FIELD_DEFINITION
        type Query { one: Int }";

    #[track_caller]
    fn found(from: &str, to: &str) -> Vec<(Severity, String)> {
        found_in(OLD, (from, to), |old, new| {
            compare(&schema_of(old), &schema_of(new))
        })
    }

    #[test]
    fn a_directive_that_is_gone_or_takes_less_breaks_documents_that_use_it() {
        const WHOLE: &str = "directive @now(at: String!, zone: String = \"UTC\") repeatable on FIELD | FRAGMENT_SPREAD";
        for (from, to, place) in [
            (WHOLE, "", "@now"),
            (" repeatable on FIELD |", " on FIELD |", "@now"),
            ("on FIELD | FRAGMENT_SPREAD\n", "on FIELD\n", "@now"),
            ("at: String!, ", "", "@now.at"),
            ("at: String!", "at: Int!", "@now.at"),
            ("at: String!", "at: String!, how: Int!", "@now.how"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Breaking, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn another_default_of_a_directives_argument_is_dangerous_and_none_where_one_is_needed_breaks() {
        let to_another = found("\"UTC\"", "\"CET\"");
        assert_eq!(to_another, [(Dangerous, "@now.zone".to_owned())]);
        let old = OLD.replace("zone: String", "zone: String!");
        let new = old.replace(" = \"UTC\"", "");
        let findings = compare(&schema_of(&old), &schema_of(&new));
        assert_eq!(
            findings,
            [Finding::new(Breaking, "@now.zone", "must be given now")]
        );
    }

    #[test]
    fn a_directive_that_takes_more_is_safe() {
        for (from, to, place) in [
            ("at: String!", "at: String", "@now.at"),
            ("at: String!", "at: String!, how: Int", "@now.how"),
            ("type Query", "directive @then on FIELD type Query", "@then"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Safe, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn directives_of_the_specification_and_of_composition_are_told_of_by_nobody() {
        for (from, to) in [
            (
                "directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT",
                "",
            ),
            ("directive @link(url: String) repeatable on SCHEMA", ""),
            ("directive @join__field on FIELD_DEFINITION", ""),
        ] {
            assert!(found(from, to).is_empty(), "{from}");
        }
    }
}
