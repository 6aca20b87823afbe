//! Decimal numbers in documents, written as strings, which keep every digit.

use apollo_compiler::Node;
use apollo_compiler::ast::Type;
use apollo_compiler::executable::{Argument, Value};
use apollo_compiler::schema::InputValueDefinition;

use super::schema::{GraphSchema, Scalar};
use super::variables::is_decimal;

/// Writes those in a field's arguments so, given the arguments that the schema defines; answers whether there was one.
pub(super) fn write_exactly(
    schema: &GraphSchema,
    arguments: &mut [Node<Argument>],
    definitions: &[Node<InputValueDefinition>],
) -> bool {
    let mut is_changed = false;
    for argument in arguments {
        let definition = definitions.iter().find(|known| known.name == argument.name);
        if let Some(definition) = definition
            && holds_number(schema, &argument.value, &definition.ty)
        {
            exact(schema, &mut argument.make_mut().value, &definition.ty);
            is_changed = true;
        }
    }
    is_changed
}

/// Whether a number stands where a decimal is expected.
fn holds_number(schema: &GraphSchema, value: &Value, ty: &Type) -> bool {
    if !schema.is_noted(ty) {
        return false;
    }
    match value {
        Value::Int(_) | Value::Float(_) => {
            GraphSchema::scalar(ty.inner_named_type()) == Some(Scalar::Decimal)
        }
        Value::List(elements) => elements
            .iter()
            .any(|one| holds_number(schema, one, ty.item_type())),
        Value::Object(fields) => fields.iter().any(|(name, one)| {
            schema
                .input_field(ty.inner_named_type(), name)
                .is_some_and(|field| holds_number(schema, one, &field.ty))
        }),
        _ => false,
    }
}

fn exact(schema: &GraphSchema, value: &mut Node<Value>, ty: &Type) {
    if !holds_number(schema, value, ty) {
        return;
    }
    match value.make_mut() {
        Value::List(elements) => {
            elements
                .iter_mut()
                .for_each(|one| exact(schema, one, ty.item_type()));
        }
        Value::Object(fields) => {
            for (name, one) in fields {
                if let Some(field) = schema.input_field(ty.inner_named_type(), name) {
                    exact(schema, one, &field.ty);
                }
            }
        }
        number => {
            let written = number.to_string();
            if is_decimal(&written) {
                *number = Value::String(written);
            }
        }
    }
}
