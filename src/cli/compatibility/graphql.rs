//! What a change of a GraphQL schema means for its clients.
//!
//! What counts as breaking and as dangerous is what graphql-js says (`findBreakingChanges`, `findDangerousChanges`): output types may only promise
//! more, input types may only ask for less.

use anyhow::{Context, anyhow};
use apollo_compiler::{Schema, ast::Type, schema::ExtendedType};
use graphql_schema_diff::{Change, ChangeKind, diff};

use super::{
    Finding,
    Severity::{self, Breaking, Dangerous, Safe},
};

/// Compares two schemas.
///
/// # Errors
/// When one of them cannot be parsed.
pub(super) fn compare(old: &str, new: &str) -> anyhow::Result<Vec<Finding>> {
    let changes = diff(old, new).map_err(|error| anyhow!("{error}"))?;
    let parsed = |text: &str| match Schema::parse(text, "schema.graphql") {
        Ok(schema) => schema,
        // Directives of composition that nobody defined are no matter of clients.
        Err(partial) => partial.partial,
    };
    let schemas = Schemas {
        old_text: old,
        new_text: new,
        old: parsed(old),
        new: parsed(new),
    };
    let mut findings = Vec::new();
    for change in &changes {
        if let Some(finding) = schemas.finding(change)? {
            findings.push(finding);
        }
    }
    Ok(findings)
}

struct Schemas<'a> {
    old_text: &'a str,
    new_text: &'a str,
    old: Schema,
    new: Schema,
}

impl Schemas<'_> {
    fn finding(&self, change: &Change) -> anyhow::Result<Option<Finding>> {
        use ChangeKind as Kind;
        let path = change.path.as_str();
        let owner = path.split('.').next().unwrap_or_default();
        if path.starts_with("join__") || path.starts_with("link__") || path.starts_with("core__") {
            return Ok(None);
        }
        let is_input = matches!(
            self.new.types.get(owner),
            Some(ExtendedType::InputObject(_))
        );
        let (severity, what): (Severity, String) = match change.kind {
            Kind::ChangeQueryType | Kind::ChangeMutationType | Kind::ChangeSubscriptionType => {
                (Breaking, "is the root of another type now".into())
            }
            Kind::RemoveObjectType
            | Kind::RemoveUnion
            | Kind::RemoveEnum
            | Kind::RemoveScalar
            | Kind::RemoveInterface
            | Kind::RemoveInputObject => (Breaking, "was removed".into()),
            // What was removed with its type is told once.
            Kind::RemoveField if !self.new.types.contains_key(owner) => return Ok(None),
            Kind::RemoveField => (Breaking, "was removed".into()),
            Kind::RemoveFieldArgument => (Breaking, "was removed: who gives it is refused".into()),
            Kind::RemoveEnumValue => (Breaking, "was removed".into()),
            Kind::RemoveUnionMember => (Breaking, "is none of the union's any more".into()),
            Kind::RemoveInterfaceImplementation => {
                (Breaking, "does not have this interface any more".into())
            }
            Kind::RemoveDirectiveDefinition => (Safe, "was removed, a directive".into()),
            Kind::AddField if is_input => self.new_input(owner, path),
            Kind::AddFieldArgument => self.new_argument(change)?,
            Kind::ChangeFieldType => self.changed_type(change, is_input)?,
            Kind::ChangeFieldArgumentType => self.changed_type(change, true)?,
            Kind::AddEnumValue => (
                Dangerous,
                "is new: clients that know all values do not know it".into(),
            ),
            Kind::AddUnionMember => (
                Dangerous,
                "is new in the union: clients may not ask for it".into(),
            ),
            Kind::AddInterfaceImplementation => (Dangerous, "has another interface now".into()),
            Kind::AddFieldArgumentDefault
            | Kind::RemoveFieldArgumentDefault
            | Kind::ChangeFieldArgumentDefault => (
                Dangerous,
                "has another default: who does not give it gets something else".into(),
            ),
            Kind::AddField
            | Kind::AddObjectType
            | Kind::AddUnion
            | Kind::AddEnum
            | Kind::AddScalar
            | Kind::AddInterface
            | Kind::AddInputObject
            | Kind::AddDirectiveDefinition => {
                // A field of a type that is new is told with it.
                if change.kind == Kind::AddField && !self.old.types.contains_key(owner) {
                    return Ok(None);
                }
                (Safe, "is new".into())
            }
            // Composition, descriptions and what was deprecated change nothing that is sent.
            Kind::AddSchemaDefinition
            | Kind::RemoveSchemaDefinition
            | Kind::AddSchemaExtension
            | Kind::RemoveSchemaExtension
            | Kind::AddDirective
            | Kind::RemoveDirective
            | Kind::ChangeDescription => return Ok(None),
        };
        Ok(Some(Finding::new(severity, path, what)))
    }

    /// A new field of an input type: asked for of those who do not know it, unless it may be left out.
    fn new_input(&self, owner: &str, path: &str) -> (Severity, String) {
        let name = path.split('.').nth(1).unwrap_or_default();
        let is_known = self.old.types.contains_key(owner);
        let field = match self.new.types.get(owner) {
            Some(ExtendedType::InputObject(input)) => input.fields.get(name),
            _ => None,
        };
        match field {
            Some(field) if is_known && field.is_required() => {
                (Breaking, format!("is new and must be given ({})", field.ty))
            }
            _ => (Safe, "is new and may be left out".into()),
        }
    }

    fn new_argument(&self, change: &Change) -> anyhow::Result<(Severity, String)> {
        let text = self.text(self.new_text, &change.span)?;
        let declared = text.split_once(':').map_or(text, |(_, declared)| declared);
        let must = !declared.contains('=') && declared.trim_end().ends_with('!');
        Ok(if must {
            (Breaking, "is new and must be given".into())
        } else {
            (Safe, "is new and may be left out".into())
        })
    }

    fn changed_type(&self, change: &Change, is_input: bool) -> anyhow::Result<(Severity, String)> {
        let source = change.source_span.as_ref();
        let source = source.context("a change of a type has no old type")?;
        let was = self.text(self.old_text, source)?.trim();
        let is = self.text(self.new_text, &change.span)?.trim();
        let (old, new) = (parsed(was)?, parsed(is)?);
        let holds = if is_input {
            is_within(&old, &new)
        } else {
            is_within(&new, &old)
        };
        let severity = if holds { Safe } else { Breaking };
        Ok((severity, format!("was {was} and is {is}")))
    }

    fn text<'t>(&self, text: &'t str, span: &graphql_schema_diff::Span) -> anyhow::Result<&'t str> {
        text.get(span.start..span.end)
            .context("a change is outside of its schema")
    }
}

fn parsed(text: &str) -> anyhow::Result<Type> {
    Type::parse(text, "type.graphql").map_err(|error| anyhow!("{text} is no type: {error}"))
}

/// Whether every value of the type `narrow` is one of the type `wide`, by null and list alone: names must be the same.
fn is_within(narrow: &Type, wide: &Type) -> bool {
    match (narrow, wide) {
        (Type::Named(a), Type::Named(b)) => a == b,
        (Type::NonNullNamed(a), Type::NonNullNamed(b) | Type::Named(b)) => a == b,
        (Type::List(a), Type::List(b)) => is_within(a, b),
        (Type::NonNullList(a), Type::NonNullList(b) | Type::List(b)) => is_within(a, b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = "
        type Query { customer(id: ID!, deep: Boolean): Customer, all(first: Int = 10): [Customer!]! }
        type Customer { id: ID!, name: String, state: State!, mail: String! }
        enum State { ACTIVE GONE }
        input New { name: String!, note: String }
        type Mutation { create(input: New!): Customer! }";

    #[track_caller]
    fn found(from: &str, to: &str) -> Vec<(Severity, String)> {
        let new = OLD.replace(from, to);
        assert_ne!(new, OLD, "{from} is not in the schema");
        let findings = compare(OLD, &new).unwrap();
        let pairs = findings.into_iter().map(|it| (it.severity, it.place));
        pairs.collect()
    }

    #[test]
    fn what_clients_send_or_read_today_must_stay() {
        for (from, to, place) in [
            (", mail: String!", "", "Customer.mail"),
            ("mail: String!", "mail: String", "Customer.mail"),
            ("name: String,", "name: [String],", "Customer.name"),
            (", deep: Boolean", "", "Query.customer.deep"),
            ("deep: Boolean", "deep: Boolean!", "Query.customer.deep"),
            ("note: String", "note: String!", "New.note"),
            ("note: String", "note: Int", "New.note"),
            ("note: String", "note: String, mail: String!", "New.mail"),
            (
                "deep: Boolean",
                "deep: Boolean, x: Int!",
                "Query.customer.x",
            ),
            ("ACTIVE GONE", "ACTIVE", "State.GONE"),
            ("[Customer!]!", "[Customer]!", "Query.all"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Breaking, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn what_clients_may_not_expect_is_dangerous() {
        for (from, to, place) in [
            ("ACTIVE GONE", "ACTIVE GONE SLEEPING", "State.SLEEPING"),
            ("first: Int = 10", "first: Int = 20", "Query.all.first"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Dangerous, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn more_answers_and_fewer_demands_are_safe() {
        for (from, to, place) in [
            ("name: String,", "name: String!,", "Customer.name"),
            ("mail: String!", "mail: String!, more: Int", "Customer.more"),
            ("name: String!, note", "name: String, note", "New.name"),
            (
                "note: String",
                "note: String, mail: String! = \"\"",
                "New.mail",
            ),
            (
                "deep: Boolean",
                "deep: Boolean, x: Int! = 3",
                "Query.customer.x",
            ),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Safe, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn a_type_that_goes_is_told_once() {
        let new = OLD
            .replace("enum State { ACTIVE GONE }", "")
            .replace("state: State!, ", "");
        let found = compare(OLD, &new).unwrap();
        let places: Vec<&str> = found.iter().map(|it| it.place.as_str()).collect();
        assert_eq!(places, ["Customer.state", "State"]);
    }
}
