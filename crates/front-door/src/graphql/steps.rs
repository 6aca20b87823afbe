//! Splits a mutation with several root fields into steps, each of which is an operation of its own.
//!
//! The fields must be executed strictly one after the other (GraphQL, section Mutation). A router starts the second
//! field before it has asked other services for all parts of the first one's answer. And if a field fails as a whole,
//! neither a router nor a service stops by itself.

use std::sync::Arc;

use apollo_compiler::executable::{
    ExecutableDocument, InlineFragment, Operation, Selection, SelectionSet,
};
use apollo_compiler::{Name, Node};

use super::references::{spreads, variables_of};

/// One root field of a mutation, as a document of its own.
pub(super) struct Step {
    /// The field's key in the answer.
    pub(super) key: Arc<str>,
    /// The document with one operation and what it uses.
    pub(super) document: ExecutableDocument,
}

/// The steps of a mutation, in the order of its fields. The list is empty if the operation has only one root field or
/// is not a mutation.
pub(super) fn split(document: &ExecutableDocument, operation: &Operation) -> Vec<Step> {
    if !operation.is_mutation() {
        return Vec::new();
    }
    let mut fields: Vec<(Name, Vec<Selection>)> = Vec::new();
    let mut add = |key: Name, selection: Selection| match fields
        .iter_mut()
        .find(|(known, _)| *known == key)
    {
        Some((_, selections)) => selections.push(selection),
        None => fields.push((key, vec![selection])),
    };
    each_field(document, &operation.selection_set, &mut add);
    if fields.len() < 2 {
        return Vec::new();
    }
    fields
        .into_iter()
        .map(|(key, selections)| Step {
            key: key.as_str().into(),
            document: alone(document, operation, selections),
        })
        .collect()
}

/// Passes on each field of a set inside the fragments around it, so that their conditions still apply.
fn each_field(
    document: &ExecutableDocument,
    set: &SelectionSet,
    give: &mut dyn FnMut(Name, Selection),
) {
    for selection in &set.selections {
        match selection {
            Selection::Field(field) => give(field.response_key().clone(), selection.clone()),
            Selection::InlineFragment(fragment) => {
                each_field(document, &fragment.selection_set, &mut |key, inside| {
                    let mut around = fragment.as_ref().clone();
                    around.selection_set.selections = vec![inside];
                    give(key, Selection::InlineFragment(Node::new(around)));
                });
            }
            Selection::FragmentSpread(spread) => {
                let Some(fragment) = spread.fragment_def(document) else {
                    continue;
                };
                each_field(document, &fragment.selection_set, &mut |key, inside| {
                    let mut selection_set = SelectionSet::new(fragment.selection_set.ty.clone());
                    selection_set.selections.push(inside);
                    let around = InlineFragment {
                        type_condition: Some(fragment.type_condition().clone()),
                        directives: spread.directives.clone(),
                        selection_set,
                    };
                    give(key, Selection::InlineFragment(Node::new(around)));
                });
            }
        }
    }
}

fn alone(
    document: &ExecutableDocument,
    operation: &Operation,
    selections: Vec<Selection>,
) -> ExecutableDocument {
    let mut operation = operation.clone();
    operation.selection_set.selections = selections;
    let mut fragments = std::collections::HashSet::new();
    spreads(document, &operation.selection_set, &mut fragments);
    let mut alone = ExecutableDocument::new();
    let mut used = std::collections::HashSet::new();
    variables_of(&operation.selection_set, &mut used);
    for (name, fragment) in &document.fragments {
        if fragments.contains(name) {
            variables_of(&fragment.selection_set, &mut used);
            alone.fragments.insert(name.clone(), fragment.clone());
        }
    }
    let used: std::collections::HashSet<String> = used.into_iter().map(str::to_owned).collect();
    operation
        .variables
        .retain(|variable| used.contains(variable.name.as_str()));
    alone.operations.insert(operation);
    alone
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::schema::GraphSchema;
    use super::*;

    fn steps(document: &str) -> Vec<(String, String)> {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        let operation = document.operations.iter().next().unwrap();
        split(&document, operation)
            .into_iter()
            .map(|step| {
                let text = step.document.serialize().no_indent().to_string();
                ExecutableDocument::parse_and_validate(schema.valid(), &text, "step").unwrap();
                (step.key.to_string(), text)
            })
            .collect()
    }

    #[test]
    fn each_field_at_the_root_is_a_step_with_what_it_uses() {
        let steps = steps(
            "mutation M($a:ID!,$b:ID!,$c:Boolean!){a:cancelOrder(id:$a){...p} ...two b:cancelOrder(id:$b){order{total}}} fragment two on Mutation{b:cancelOrder(id:$b){order{id}} ...@skip(if:$c){c:eraseCustomer(id:$a){__typename}}} fragment p on OrderPayload{order{id}}",
        );
        let keys: Vec<&str> = steps.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a", "b", "c"]);
        assert!(steps[0].1.contains("fragment p") && !steps[0].1.contains("$b"));
        assert_eq!(steps[1].1.matches("cancelOrder(id: $b)").count(), 2);
        assert!(!steps[1].1.contains("$a") && !steps[1].1.contains("fragment p"));
        assert!(steps[2].1.contains("@skip(if: $c)") && steps[2].1.contains("$a: ID!"));
    }

    #[test]
    fn what_has_one_field_at_its_root_or_is_no_mutation_has_no_steps() {
        for document in [
            r#"mutation{cancelOrder(id:"1"){order{id}} cancelOrder(id:"1"){order{total}}}"#,
            "{a:__typename b:__typename}",
        ] {
            assert!(steps(document).is_empty(), "{document}");
        }
    }
}
