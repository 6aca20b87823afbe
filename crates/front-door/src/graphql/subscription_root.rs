//! Moves the root field of a subscription to where executors look for it: directly at the root, once.
//!
//! The specification also permits it inside fragments, and merges several fields with the same key into one (GraphQL,
//! sections Single Root Field and Field Selection Merging).

use apollo_compiler::Node;
use apollo_compiler::ast::{
    Definition, Document, Field, FragmentDefinition, OperationType, Selection,
};

/// Merges the root fields of each subscription of a document, if by the specification they are one field. Returns
/// whether it changed anything. Others stay as they are, and validation refuses them. `root` is the type of
/// subscriptions.
pub(super) fn merge(document: &mut Document, root: &str) -> bool {
    let mut merged = Vec::new();
    for (at, definition) in document.definitions.iter().enumerate() {
        let Definition::OperationDefinition(operation) = definition else {
            continue;
        };
        if operation.operation_type != OperationType::Subscription
            || matches!(operation.selection_set.as_slice(), [Selection::Field(_)])
        {
            continue;
        }
        if let Some(field) = merged_root(document, &operation.selection_set, root) {
            merged.push((at, field));
        }
    }
    if merged.is_empty() {
        return false;
    }
    for (at, field) in merged {
        if let Some(Definition::OperationDefinition(operation)) = document.definitions.get_mut(at) {
            operation.make_mut().selection_set = vec![Selection::Field(field)];
        }
    }
    drop_unused(document, root);
    true
}

fn merged_root(document: &Document, set: &[Selection], root: &str) -> Option<Node<Field>> {
    let mut fields = Vec::new();
    collect(document, set, root, &mut fields)?;
    let mut fields = fields.into_iter();
    let mut first = fields.next()?;
    for other in fields {
        let is_same = other.response_name() == first.response_name()
            && other.name == first.name
            && has_arguments_of(&other, &first)
            && other.directives == first.directives;
        if !is_same {
            return None;
        }
        first
            .make_mut()
            .selection_set
            .extend(other.selection_set.iter().cloned());
    }
    Some(first)
}

fn has_arguments_of(one: &Field, other: &Field) -> bool {
    one.arguments.len() == other.arguments.len()
        && one.arguments.iter().all(|argument| {
            other
                .arguments
                .iter()
                .any(|known| known.name == argument.name && known.value == argument.value)
        })
}

/// Collects the fields at the root; `None` if a fragment there has a condition or a directive.
fn collect(
    document: &Document,
    set: &[Selection],
    root: &str,
    fields: &mut Vec<Node<Field>>,
) -> Option<()> {
    for selection in set {
        match selection {
            Selection::Field(field) => fields.push(field.clone()),
            Selection::InlineFragment(fragment) => {
                let applies = fragment.type_condition.as_ref().is_none_or(|ty| ty == root);
                if !applies || !fragment.directives.is_empty() {
                    return None;
                }
                collect(document, &fragment.selection_set, root, fields)?;
            }
            Selection::FragmentSpread(spread) => {
                let fragment = fragment(document, &spread.fragment_name)?;
                if fragment.type_condition != root
                    || !spread.directives.is_empty()
                    || !fragment.directives.is_empty()
                {
                    return None;
                }
                collect(document, &fragment.selection_set, root, fields)?;
            }
        }
    }
    Some(())
}

fn fragment<'a>(document: &'a Document, name: &str) -> Option<&'a Node<FragmentDefinition>> {
    document
        .definitions
        .iter()
        .filter_map(Definition::as_fragment_definition)
        .find(|fragment| fragment.name == name)
}

/// Removes the fragments on the root type. Nothing uses them any more, and nothing else could.
fn drop_unused(document: &mut Document, root: &str) {
    document.definitions.retain(|definition| match definition {
        Definition::FragmentDefinition(fragment) => fragment.type_condition != root,
        _ => true,
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn merged(document: &str) -> Option<String> {
        let mut document = Document::parse(document, "document").unwrap();
        merge(&mut document, "Subscription").then(|| {
            document
                .to_string()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
    }

    #[test]
    fn what_a_subscription_selects_stands_in_one_field_at_its_root() {
        for (document, written) in [
            (
                r#"subscription{...{a(id:"1"){id}}}"#,
                r#"subscription { a(id: "1") { id } }"#,
            ),
            (
                r#"subscription{...x} fragment x on Subscription{...y} fragment y on Subscription{a(id:"1"){...c}} fragment c on Customer{id}"#,
                r#"subscription { a(id: "1") { ...c } } fragment c on Customer { id }"#,
            ),
            (
                r#"subscription{a(id:"1",n:1){id} a(n:1,id:"1"){replica{revision}}}"#,
                r#"subscription { a(id: "1", n: 1) { id replica { revision } } }"#,
            ),
        ] {
            assert_eq!(merged(document).unwrap(), written);
        }
    }

    #[test]
    fn what_is_not_one_field_is_left_for_validation() {
        for document in [
            r#"subscription{a(id:"1"){id}}"#,
            r#"subscription{a(id:"1"){id} b:a(id:"1"){id}}"#,
            r#"subscription{a(id:"1"){id} a(id:"2"){id}}"#,
            r#"subscription{...@include(if:true){a(id:"1"){id}}}"#,
            r#"subscription{... on Query{a}}"#,
            r#"subscription{...nowhere}"#,
            r#"{...{a}}"#,
        ] {
            assert_eq!(merged(document), None, "{document}");
        }
    }
}
