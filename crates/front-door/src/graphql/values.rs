//! Visits the values of a document, each with the type of its place: in arguments of fields and directives, in defaults
//! of variables, and inside other values.

use apollo_compiler::Node;
use apollo_compiler::ast::{Argument, DirectiveList, InputValueDefinition, Type};
use apollo_compiler::executable::{Operation, Selection, SelectionSet, Value};

use super::error::RequestError;
use super::schema::GraphSchema;

/// A value at its place.
pub(super) struct Placed<'a> {
    pub(super) value: &'a Node<Value>,
    pub(super) ty: &'a Type,
    /// Whether the place has a default that counts if no value is given.
    pub(super) has_default: bool,
}

/// Visits a value. The second argument is its path, such as `input.items[0].product.price`.
pub(super) type Look<'f, 'a> = &'f mut dyn FnMut(&Placed<'a>, &str) -> Result<(), RequestError>;

/// Visits the defaults of an operation's variables.
///
/// # Errors
/// Those of the visitor.
pub(super) fn in_defaults<'a>(
    schema: &'a GraphSchema,
    operation: &'a Operation,
    look: Look<'_, 'a>,
) -> Result<(), RequestError> {
    for variable in &operation.variables {
        if let Some(value) = &variable.default_value {
            let placed = Placed {
                value,
                ty: &variable.ty,
                has_default: false,
            };
            inside(schema, &placed, &mut variable.name.to_string(), look)?;
        }
    }
    Ok(())
}

/// Visits the arguments of a selection, without those of the fragments that it refers to.
///
/// # Errors
/// Those of the visitor.
pub(super) fn in_set<'a>(
    schema: &'a GraphSchema,
    set: &'a SelectionSet,
    look: Look<'_, 'a>,
) -> Result<(), RequestError> {
    for selection in &set.selections {
        in_directives(schema, selection.directives(), look)?;
        match selection {
            Selection::Field(field) => {
                in_arguments(schema, &field.arguments, &field.definition.arguments, look)?;
                in_set(schema, &field.selection_set, look)?;
            }
            Selection::InlineFragment(fragment) => in_set(schema, &fragment.selection_set, look)?,
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

fn in_directives<'a>(
    schema: &'a GraphSchema,
    directives: &'a DirectiveList,
    look: Look<'_, 'a>,
) -> Result<(), RequestError> {
    for directive in &directives.0 {
        let known = &schema.valid().directive_definitions;
        if let Some(definition) = known.get(&directive.name) {
            in_arguments(schema, &directive.arguments, &definition.arguments, look)?;
        }
    }
    Ok(())
}

fn in_arguments<'a>(
    schema: &'a GraphSchema,
    arguments: &'a [Node<Argument>],
    definitions: &'a [Node<InputValueDefinition>],
    look: Look<'_, 'a>,
) -> Result<(), RequestError> {
    for argument in arguments {
        if let Some(definition) = definitions.iter().find(|known| known.name == argument.name) {
            let placed = Placed {
                value: &argument.value,
                ty: &definition.ty,
                has_default: definition.default_value.is_some(),
            };
            inside(schema, &placed, &mut argument.name.to_string(), look)?;
        }
    }
    Ok(())
}

fn inside<'a>(
    schema: &'a GraphSchema,
    placed: &Placed<'a>,
    path: &mut String,
    look: Look<'_, 'a>,
) -> Result<(), RequestError> {
    look(placed, path)?;
    let length = path.len();
    let value: &'a Value = placed.value;
    match value {
        Value::List(elements) => {
            for (at, element) in elements.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                let placed = Placed {
                    value: element,
                    ty: placed.ty.item_type(),
                    has_default: false,
                };
                inside(schema, &placed, path, look)?;
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if let Some(field) = schema.input_field(placed.ty.inner_named_type(), name) {
                    path.push('.');
                    path.push_str(name);
                    let placed = Placed {
                        value: member,
                        ty: &field.ty,
                        has_default: field.default_value.is_some(),
                    };
                    inside(schema, &placed, path, look)?;
                    path.truncate(length);
                }
            }
        }
        _ => {}
    }
    Ok(())
}
