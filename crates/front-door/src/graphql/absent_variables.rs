//! Variables that a request does not provide.
//!
//! If such a variable is the whole value of an argument or input field that has a default, the default counts (GraphQL,
//! Coercing Field Arguments).

use std::collections::HashSet;

use apollo_compiler::Node;
use apollo_compiler::ast::Type;
use apollo_compiler::executable::{Argument, ExecutableDocument, Operation, Selection, Value};
use apollo_compiler::schema::InputValueDefinition;

use super::schema::GraphSchema;

/// Finds the variables whose places have a default, which counts if the variable is not given.
pub(super) fn defaulted(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
) -> HashSet<String> {
    let mut found = HashSet::new();
    let mut sets = vec![&operation.selection_set];
    sets.extend(
        document
            .fragments
            .values()
            .map(|fragment| &fragment.selection_set),
    );
    while let Some(set) = sets.pop() {
        for selection in &set.selections {
            match selection {
                Selection::Field(field) => {
                    sets.push(&field.selection_set);
                    for argument in &field.arguments {
                        let known = field.definition.argument_by_name(&argument.name);
                        if let Some(known) = known {
                            let has_default = known.default_value.is_some();
                            defaulted_in(
                                schema,
                                &argument.value,
                                &known.ty,
                                has_default,
                                &mut found,
                            );
                        }
                    }
                }
                Selection::InlineFragment(fragment) => sets.push(&fragment.selection_set),
                Selection::FragmentSpread(_) => {}
            }
        }
    }
    found
}

fn defaulted_in(
    schema: &GraphSchema,
    value: &Value,
    ty: &Type,
    has_default: bool,
    found: &mut HashSet<String>,
) {
    match value {
        Value::Variable(name) if has_default => {
            found.insert(name.to_string());
        }
        Value::List(elements) => {
            for one in elements {
                defaulted_in(schema, one, ty.item_type(), false, found);
            }
        }
        Value::Object(fields) => {
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty.inner_named_type(), name) {
                    let has_default = field.default_value.is_some();
                    defaulted_in(schema, one, &field.ty, has_default, found);
                }
            }
        }
        _ => {}
    }
}

/// Removes a field's arguments, and input fields inside them, whose value is one of these variables and that have a
/// default. `definitions` are the arguments that the schema defines. Returns whether it removed any.
pub(super) fn leave_to_defaults(
    schema: &GraphSchema,
    arguments: &mut Vec<Node<Argument>>,
    definitions: &[Node<InputValueDefinition>],
    absent: &HashSet<&str>,
) -> bool {
    let before = arguments.len();
    arguments.retain(|argument| {
        let has_default = definitions
            .iter()
            .any(|known| known.name == argument.name && known.default_value.is_some());
        !(has_default && is_one_of(&argument.value, absent))
    });
    let mut is_changed = arguments.len() != before;
    for argument in arguments {
        let definition = definitions.iter().find(|known| known.name == argument.name);
        if let Some(definition) = definition {
            is_changed |= left_out(
                schema,
                &mut argument.make_mut().value,
                &definition.ty,
                absent,
            );
        }
    }
    is_changed
}

/// Removes such fields from an input object. Returns whether it removed any.
fn left_out(
    schema: &GraphSchema,
    value: &mut Node<Value>,
    ty: &Type,
    absent: &HashSet<&str>,
) -> bool {
    if !matches!(value.as_ref(), Value::List(_) | Value::Object(_)) {
        return false;
    }
    match value.make_mut() {
        Value::List(elements) => {
            let mut changed = false;
            for one in elements {
                changed |= left_out(schema, one, ty.item_type(), absent);
            }
            changed
        }
        Value::Object(fields) => {
            let ty = ty.inner_named_type();
            let before = fields.len();
            fields.retain(|(name, one)| {
                let has_default = schema
                    .input_field(ty, name)
                    .is_some_and(|field| field.default_value.is_some());
                !(has_default && is_one_of(one, absent))
            });
            let mut is_changed = fields.len() != before;
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty, name) {
                    is_changed |= left_out(schema, one, &field.ty, absent);
                }
            }
            is_changed
        }
        _ => false,
    }
}

fn is_one_of(value: &Value, absent: &HashSet<&str>) -> bool {
    value
        .as_variable()
        .is_some_and(|name| absent.contains(name.as_str()))
}
