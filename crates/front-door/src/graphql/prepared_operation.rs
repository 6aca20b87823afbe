//! An operation of a checked document, prepared once for all requests for it.
//!
//! It has the form that is executed, and what must be known about its variables, its cost and its answers.

use std::sync::Arc;

use apollo_compiler::Node;
use apollo_compiler::ast::{self, Definition, OperationType, VariableDefinition};
use apollo_compiler::executable::{ExecutableDocument, Operation};

use super::cost::Cost;
use super::schema::GraphSchema;
use super::treatment::{Treatment, kept_name};
use super::variables::Variable;
use super::variants::{Variants, write};
use super::{aliases, default_values, steps, variable_usages};

/// The kind of an operation. A request that forwards an operation carries it in its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It reads.
    Query,
    /// It writes.
    Mutation,
    /// Its answer is a stream of events.
    Subscription,
}

impl Kind {
    fn of(operation_type: OperationType) -> Self {
        match operation_type {
            OperationType::Query => Self::Query,
            OperationType::Mutation => Self::Mutation,
            OperationType::Subscription => Self::Subscription,
        }
    }
}

/// An operation that may be executed.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The client's name for it.
    pub(super) name: Option<String>,
    /// The name with which it is executed.
    pub(super) sent_name: Option<String>,
    pub(super) kind: Kind,
    /// The document that is executed, if it differs from the client's.
    pub(super) rewritten: Option<Arc<str>>,
    pub(super) cost: Option<Cost>,
    pub(super) variables: Vec<Variable>,
    /// Whether answers contain fields that the client did not ask for.
    pub(super) has_fillers: bool,
    /// Whether answers contain names that are not the client's.
    pub(super) has_renamed: bool,
    /// Whether errors may have locations in a document that is not the client's.
    pub(super) has_other_places: bool,
    /// The fields of a mutation by their keys, if there are several. Each one is an operation of its own. If one fails
    /// as a whole, the next ones are not started.
    pub(super) steps: Vec<(Arc<str>, Prepared)>,
    /// The keys of a subscription's root field and of its cursor, if the cursor is selected.
    pub(super) cursor: Option<(String, Option<String>)>,
    variants: Option<Variants>,
}

impl Prepared {
    /// Prepares an operation of a valid document. `is_changed` says whether the document differs from the client's
    /// text.
    pub(super) fn of(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
        treatment: &Treatment,
        is_changed: bool,
    ) -> Self {
        let written = write(schema, document, operation, treatment, None);
        let name = operation.name.as_ref().map(ToString::to_string);
        // Resolved escapes and merged root fields must be forwarded too.
        let rewritten = written
            .text
            .or_else(|| is_changed.then(|| document.serialize().no_indent().to_string()));
        let steps = Self::steps(schema, document, operation, treatment);
        let variants = Variants::of(schema, document, operation, treatment);
        // A router makes its own document from a subscription, and its errors have locations in that document.
        let has_other_places = rewritten.is_some()
            || variants.is_some()
            || !steps.is_empty()
            || treatment.is_federated && operation.is_subscription();
        Self {
            sent_name: name.as_deref().map(|name| kept_name(treatment, name)),
            name,
            kind: Kind::of(operation.operation_type),
            rewritten: rewritten.map(Arc::from),
            cost: Some(Cost::of(schema, document, operation)),
            variables: Self::variables(schema, document, operation),
            has_fillers: written.has_fillers || steps.iter().any(|(_, step)| step.has_fillers),
            has_renamed: written.has_renamed,
            has_other_places,
            steps,
            cursor: Self::cursor(schema, document, operation, treatment),
            variants,
        }
    }

    fn variables(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
    ) -> Vec<Variable> {
        let needed = variable_usages::without_null(schema, document, operation);
        let described = |variable: &Node<VariableDefinition>| Variable {
            name: variable.name.to_string(),
            ty: variable.ty.as_ref().clone(),
            default: variable
                .default_value
                .as_ref()
                .map(|value| default_values::json(schema, value, &variable.ty)),
            needed: needed.get(variable.name.as_str()).cloned(),
        };
        operation.variables.iter().map(described).collect()
    }

    fn steps(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
        treatment: &Treatment,
    ) -> Vec<(Arc<str>, Self)> {
        steps::split(document, operation)
            .into_iter()
            .filter_map(|step| {
                let operation = step.document.operations.iter().next()?;
                let prepared = Self::of(schema, &step.document, operation, treatment, true);
                Some((step.key, prepared))
            })
            .collect()
    }

    /// The keys of a subscription's root field and of its cursor, as they are before the client's names are restored.
    fn cursor(
        schema: &GraphSchema,
        document: &ExecutableDocument,
        operation: &Operation,
        treatment: &Treatment,
    ) -> Option<(String, Option<String>)> {
        let (root, cursor) = cursor(document, operation)?;
        let name = |key: String| match aliases::handed_on(schema, &key) {
            Some(other) if treatment.is_federated => other,
            _ => key,
        };
        Some((name(root), cursor.map(name)))
    }

    /// Whether answers must be changed into the form that the client asked for.
    pub(super) fn is_altered(&self) -> bool {
        self.has_fillers || self.has_renamed || self.has_other_places
    }

    /// The document for a request with the variables that `is_given` accepts; `None` if the common document fits.
    pub(super) fn without_absent(&self, is_given: impl Fn(&str) -> bool) -> Option<Arc<str>> {
        self.variants
            .as_ref()?
            .without_absent(self.name.as_deref(), is_given)
    }
}

fn cursor(
    document: &ExecutableDocument,
    operation: &Operation,
) -> Option<(String, Option<String>)> {
    if !operation.is_subscription() {
        return None;
    }
    let root = operation.selection_set.root_fields(document).next()?;
    let cursor = root
        .selection_set
        .root_fields(document)
        .find(|field| field.name == "cursor")
        .map(|field| field.response_key().to_string());
    Some((root.response_key().to_string(), cursor))
}

/// Prepares the operations of a document on a port that has no schema.
pub(super) fn unvalidated(document: &ast::Document, is_changed: bool) -> Vec<Prepared> {
    let written = is_changed.then(|| document.serialize().no_indent().to_string());
    let rewritten: Option<Arc<str>> = written.map(Arc::from);
    document
        .definitions
        .iter()
        .filter_map(Definition::as_operation_definition)
        .map(|operation| Prepared {
            name: operation.name.as_ref().map(ToString::to_string),
            sent_name: operation.name.as_ref().map(ToString::to_string),
            kind: Kind::of(operation.operation_type),
            rewritten: rewritten.clone(),
            cost: None,
            variables: Vec::new(),
            has_fillers: false,
            has_renamed: false,
            has_other_places: is_changed,
            steps: Vec::new(),
            cursor: None,
            variants: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::document::Documents;
    use super::super::document_limits::DocumentLimits;
    use super::super::test_support::documents;
    use super::*;

    #[test]
    fn unknown_names_become_one() {
        let documents = documents(false);
        let known = documents
            .operation("query Known{__typename}", None)
            .unwrap();
        assert!(known.rewritten.is_none());
        for name in ["A", "B"] {
            let operation = documents
                .operation(&format!("query {name}{{__typename}}"), None)
                .unwrap();
            assert_eq!(operation.sent_name.as_deref(), Some("Other"));
            assert!(
                operation
                    .rewritten
                    .as_ref()
                    .unwrap()
                    .contains("query Other")
            );
        }
    }

    #[test]
    fn a_block_string_is_handed_on_as_the_text_that_it_means() {
        let document = "mutation{updateCustomer(id:\"a\",input:{name:{firstName:\"\"\"a\\\"\"\"b\"\"\",lastName:\"\"\"\n  x\ry\r\n  z\n\"\"\"}}){customer{id}}}";
        let without_schema = Documents::new(None, DocumentLimits::default(), Treatment::default());
        for documents in [documents(false), documents(true), without_schema] {
            let operation = documents.operation(document, None).unwrap();
            let text = operation.rewritten.as_ref().unwrap();
            for kept in [r#"firstName: "a\"\"\"b""#, r#"lastName: "  x\ny\n  z""#] {
                assert!(text.contains(kept), "{text}");
            }
        }
    }

    #[test]
    fn each_field_of_a_mutation_is_an_operation_of_its_own_at_a_service_too() {
        for is_federated in [false, true] {
            let documents = documents(is_federated);
            let document =
                r#"mutation{a:cancelOrder(id:"1"){order{id}} b:cancelOrder(id:"2"){order{id}}}"#;
            let operation = documents.operation(document, None).unwrap();
            let keys: Vec<&str> = operation
                .steps
                .iter()
                .map(|(key, _)| key.as_ref())
                .collect();
            assert_eq!(keys, ["a", "b"]);
        }
    }

    #[test]
    fn a_mistyped_field_is_told_of_before_what_follows_from_it() {
        let documents = documents(false);
        let refused = documents
            .operation("{customers{nodes{nmae}}}", None)
            .unwrap_err();
        let first = refused.errors().to_string();
        let (name, follows) = (first.find("nmae"), first.find("subselection"));
        assert!(name < follows.or(Some(usize::MAX)), "{first}");
        assert!(name.is_some(), "{first}");
    }

    #[test]
    fn an_alias_that_covers_a_key_gets_a_name_of_its_own() {
        let documents = documents(true);
        for (document, renamed) in [
            (
                "{customers{nodes{id:createdAt}}}",
                "tandemAlias_id: createdAt",
            ),
            (
                "{customers{nodes{id:__typename revision}}}",
                "tandemAlias_id: __typename",
            ),
            (
                "{customers{nodes{...a}}} fragment a on Customer{__typename:id}",
                "tandemAlias___typename: id",
            ),
        ] {
            let operation = documents.operation(document, None).unwrap();
            assert!(operation.has_renamed);
            let text = operation.rewritten.as_ref().unwrap();
            assert!(text.contains(renamed), "{text}");
        }
        let plain = documents
            .operation("{customers{nodes{id:id a:id}}}", None)
            .unwrap();
        assert!(!plain.has_renamed && plain.rewritten.is_none());
        assert!(
            documents
                .operation("{customers{nodes{tandemAlias_id:id}}}", None)
                .is_err()
        );
        let lagging = documents
            .operation("subscription{orderUpdated{id:cursor}}", None)
            .unwrap();
        assert_eq!(
            lagging.cursor.as_ref().unwrap().1.as_deref(),
            Some("tandemAlias_id")
        );
    }

    #[test]
    fn a_subscriptions_cursor_is_found_under_its_alias() {
        let documents = documents(false);
        let with = r#"subscription{o:orderUpdated(customerId:"1"){...u}} fragment u on OrderUpdate{c:cursor}"#;
        let operation = documents.operation(with, None).unwrap();
        assert_eq!(
            operation.cursor,
            Some(("o".to_owned(), Some("c".to_owned())))
        );
        let without = r#"subscription{orderUpdated{order{id}}}"#;
        assert_eq!(
            documents
                .operation(without, None)
                .unwrap()
                .cursor
                .as_ref()
                .unwrap()
                .1,
            None
        );
    }
}
