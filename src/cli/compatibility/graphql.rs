//! Compares two GraphQL schemas from the view of clients.
//!
//! Breaking and dangerous changes are those of graphql-js (`findBreakingChanges`, `findDangerousChanges`): output types
//! may only promise more, input types may only require less. Also compared are who may see what (`access`), what is
//! hidden, and removed defaults of values that are required.

mod access;
mod directives;

use anyhow::{Context, anyhow};
use apollo_compiler::{
    Name, Node, Schema,
    ast::{FieldDefinition, InputValueDefinition, Type},
    collections::IndexMap,
    schema::{Component, ExtendedType},
};
use graphql_schema_diff::{Change, ChangeKind, diff};

use super::{
    Finding,
    Severity::{self, Breaking, Dangerous, Safe},
};

/// Prefixes of names that only composition uses. Clients do not see them.
const MACHINERY: [&str; 3] = ["join__", "link__", "core__"];
/// Directives that take something from clients when they are added, and what they take.
const TAKING: [(&str, &str); 2] = [
    ("inaccessible", "is hidden from clients now"),
    ("oneOf", "takes one of its fields alone now"),
];

/// Compares two schemas.
///
/// # Errors
/// When one of them cannot be parsed.
pub(super) fn compare(old: &str, new: &str) -> anyhow::Result<Vec<Finding>> {
    let changes = diff(old, new).map_err(|error| anyhow!("{error}"))?;
    let schemas = Schemas {
        old_text: old,
        new_text: new,
        old: schema_of(old),
        new: schema_of(new),
    };
    let mut findings = Vec::new();
    for change in &changes {
        if let Some(finding) = schemas.finding(change)? {
            findings.push(finding);
        }
    }
    findings.extend(schemas.defaults_of_input_fields());
    findings.extend(directives::compare(&schemas.old, &schemas.new));
    findings.extend(access::compare(&schemas.old, &schemas.new));
    Ok(findings)
}

fn schema_of(text: &str) -> Schema {
    match Schema::parse(text, "schema.graphql") {
        Ok(schema) => schema,
        // Undefined directives of composition do not concern clients.
        Err(partial) => partial.partial,
    }
}

fn is_machinery(name: &str) -> bool {
    MACHINERY.iter().any(|begin| name.starts_with(begin))
}

/// The fields of an output type.
fn fields(ty: &ExtendedType) -> Option<&IndexMap<Name, Component<FieldDefinition>>> {
    match ty {
        ExtendedType::Object(object) => Some(&object.fields),
        ExtendedType::Interface(interface) => Some(&interface.fields),
        _ => None,
    }
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
        if is_machinery(path) {
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
            // What was removed with its type is reported once, with the type.
            Kind::RemoveField if !self.new.types.contains_key(owner) => return Ok(None),
            Kind::RemoveField => (Breaking, "was removed".into()),
            Kind::RemoveFieldArgument => (Breaking, "was removed: who gives it is refused".into()),
            Kind::RemoveEnumValue => (Breaking, "was removed".into()),
            Kind::RemoveUnionMember => (Breaking, "is none of the union's any more".into()),
            Kind::RemoveInterfaceImplementation => {
                (Breaking, "does not have this interface any more".into())
            }
            Kind::AddField if is_input => self.new_input(owner, path),
            Kind::AddFieldArgument => self.new_argument(path),
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
            Kind::RemoveFieldArgumentDefault if self.must_be_given(path) => {
                (Breaking, "has no default any more and must be given".into())
            }
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
            | Kind::AddInputObject => {
                // A field of a new type is reported with the type.
                if change.kind == Kind::AddField && !self.old.types.contains_key(owner) {
                    return Ok(None);
                }
                (Safe, "is new".into())
            }
            Kind::AddDirective => return Ok(taking(path)),
            // Directives are compared separately, in `directives`.
            Kind::AddDirectiveDefinition | Kind::RemoveDirectiveDefinition => return Ok(None),
            // Composition, descriptions and deprecations change nothing that is sent. Access is compared separately, in
            // `access`.
            Kind::AddSchemaDefinition
            | Kind::RemoveSchemaDefinition
            | Kind::AddSchemaExtension
            | Kind::RemoveSchemaExtension
            | Kind::RemoveDirective
            | Kind::ChangeDescription => return Ok(None),
        };
        Ok(Some(Finding::new(severity, path, what)))
    }

    /// A new field of an input type. It is breaking if it is required, because clients do not know it.
    fn new_input(&self, owner: &str, path: &str) -> (Severity, String) {
        let name = path.split('.').nth(1).unwrap_or_default();
        let field = match self.new.types.get(owner) {
            Some(ExtendedType::InputObject(input)) => input.fields.get(name),
            _ => None,
        };
        match field {
            Some(field) if !field.is_required() => may_be_left_out(),
            Some(field) => (Breaking, format!("is new and must be given ({})", field.ty)),
            None => (Breaking, "is new, and how is not understood".into()),
        }
    }

    fn new_argument(&self, path: &str) -> (Severity, String) {
        if self.must_be_given(path) {
            (Breaking, "is new and must be given".into())
        } else {
            may_be_left_out()
        }
    }

    /// Whether the new schema requires the argument at this place, such as `Query.customers.first`. An argument that is
    /// not found counts as required.
    fn must_be_given(&self, path: &str) -> bool {
        self.argument(path)
            .is_none_or(|argument| argument.is_required())
    }

    fn argument(&self, path: &str) -> Option<&Node<InputValueDefinition>> {
        let mut names = path.split('.');
        let (owner, field, argument) = (names.next()?, names.next()?, names.next()?);
        let field = fields(self.new.types.get(owner)?)?.get(field)?;
        field.argument_by_name(argument)
    }

    /// Changed defaults of fields of input types. If the type changed too, that is already reported.
    fn defaults_of_input_fields(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, was) in &self.old.types {
            let (Some(was), Some(is)) = (
                was.as_input_object(),
                self.new
                    .types
                    .get(name)
                    .and_then(ExtendedType::as_input_object),
            ) else {
                continue;
            };
            for (field, was) in &was.fields {
                let Some(is) = is.fields.get(field) else {
                    continue;
                };
                if was.ty != is.ty || was.default_value == is.default_value {
                    continue;
                }
                let (severity, what) = if is.is_required() {
                    (Breaking, "has no default any more and must be given")
                } else if was.is_required() {
                    (Safe, "may be left out now")
                } else {
                    (
                        Dangerous,
                        "has another default: who does not give it gets something else",
                    )
                };
                let place = format!("{name}.{field}");
                findings.push(Finding::new(severity, place, what));
            }
        }
        findings
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

/// The finding for a new optional input. graphql-js calls it dangerous: what clients already send must keep its
/// meaning.
fn may_be_left_out() -> (Severity, String) {
    let what = "is new and may be left out: to leave it out must mean what it meant";
    (Dangerous, what.into())
}

/// What an added directive takes from clients. Its path is like `Customer.name.@inaccessible[0]`.
fn taking(path: &str) -> Option<Finding> {
    let (place, directive) = path.rsplit_once(".@")?;
    let (name, _) = directive.split_once('[')?;
    let name = name.strip_prefix("federation__").unwrap_or(name);
    let (_, what) = TAKING.iter().find(|(taking, _)| *taking == name)?;
    Some(Finding::new(Breaking, place, *what))
}

fn parsed(text: &str) -> anyhow::Result<Type> {
    Type::parse(text, "type.graphql").map_err(|error| anyhow!("{text} is no type: {error}"))
}

/// Whether every value of the type `narrow` is a value of the type `wide`. Only null and lists may differ; the names
/// must be the same.
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
        input New { name: String!, note: String, kind: String! = \"person\" }
        type Mutation { create(input: New!): Customer! }
        directive @now(at: String) on FIELD";

    /// The findings and their places when a part of a schema is replaced.
    #[track_caller]
    pub(super) fn found_in(
        old: &str,
        (from, to): (&str, &str),
        compare: impl FnOnce(&str, &str) -> Vec<Finding>,
    ) -> Vec<(Severity, String)> {
        let new = old.replace(from, to);
        assert_ne!(new, old, "{from} is not in the schema");
        let findings = compare(old, &new).into_iter();
        findings.map(|it| (it.severity, it.place)).collect()
    }

    #[track_caller]
    fn found(from: &str, to: &str) -> Vec<(Severity, String)> {
        found_in(OLD, (from, to), |old, new| compare(old, new).unwrap())
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
            // Neither a directive after it nor a colon before it hides that the argument is required.
            (
                "deep: Boolean",
                "deep: Boolean, \"so: deep\" x: Int! @tag(name: \"x\")",
                "Query.customer.x",
            ),
            (" = \"person\"", "", "New.kind"),
            ("ACTIVE GONE", "ACTIVE", "State.GONE"),
            ("[Customer!]!", "[Customer]!", "Query.all"),
            ("directive @now(at: String) on FIELD", "", "@now"),
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
            ("\"person\"", "\"firm\"", "New.kind"),
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
                "directive @now",
                "directive @then on FIELD directive @now",
                "@then",
            ),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Safe, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn what_is_new_and_may_be_left_out_is_dangerous_as_graphql_js_has_it() {
        for (from, to, place) in [
            ("note: String", "note: String, mail: String", "New.mail"),
            (
                "note: String",
                "note: String, mail: String! = \"\"",
                "New.mail",
            ),
            ("deep: Boolean", "deep: Boolean, x: Int", "Query.customer.x"),
            (
                "deep: Boolean",
                "deep: Boolean, x: Int! = 3",
                "Query.customer.x",
            ),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Dangerous, place.to_owned())], "{from} to {to}");
        }
    }

    #[test]
    fn an_argument_that_loses_its_default_and_may_not_be_null_must_be_given() {
        let old = OLD.replace("first: Int = 10", "first: Int! = 10");
        let new = OLD.replace("first: Int = 10", "first: Int!");
        let what = "has no default any more and must be given";
        assert_eq!(
            compare(&old, &new).unwrap(),
            [Finding::new(Breaking, "Query.all.first", what)]
        );
    }

    #[test]
    fn what_asks_for_more_rights_or_is_hidden_breaks_and_what_asks_for_fewer_is_dangerous() {
        for (from, to, place) in [
            ("type Customer", "type Customer @authenticated", "Customer"),
            (
                "mail: String!",
                "mail: String! @requiresScopes(scopes: [[\"read\"]])",
                "Customer.mail",
            ),
            (
                "mail: String!",
                "mail: String! @inaccessible",
                "Customer.mail",
            ),
            ("input New {", "input New @oneOf {", "New"),
        ] {
            let found = found(from, to);
            assert_eq!(found, [(Breaking, place.to_owned())], "{from} to {to}");
        }
        let guarded = OLD.replace("mail: String!", "mail: String! @authenticated");
        let found = compare(&guarded, OLD).unwrap().into_iter();
        let found: Vec<(Severity, String)> = found.map(|it| (it.severity, it.place)).collect();
        assert_eq!(found, [(Dangerous, "Customer.mail".to_owned())]);
    }

    #[test]
    fn directives_that_change_nothing_for_clients_are_no_finding() {
        let tagged = OLD.replace(
            "mail: String!",
            "mail: String! @tag(name: \"x\") @shareable",
        );
        assert_eq!(compare(OLD, &tagged).unwrap(), []);
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
