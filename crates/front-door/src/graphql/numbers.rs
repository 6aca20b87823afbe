//! Turns numbers in documents into strings where the libraries of the inner server would lose digits.
//!
//! These are decimals, and identities beyond the range of a machine's integer.

use apollo_compiler::Node;
use apollo_compiler::ast::{Type, VariableDefinition};
use apollo_compiler::executable::{Argument, Value};
use apollo_compiler::schema::InputValueDefinition;

use super::schema::{GraphSchema, Scalar};

/// Turns such numbers in a field's arguments into strings. `definitions` are the arguments that the schema defines.
/// Returns whether it changed any.
pub(super) fn write_exactly(
    schema: &GraphSchema,
    arguments: &mut [Node<Argument>],
    definitions: &[Node<InputValueDefinition>],
) -> bool {
    let mut is_changed = false;
    for argument in arguments {
        let definition = definitions.iter().find(|known| known.name == argument.name);
        if let Some(definition) = definition
            && holds_inexact(schema, &argument.value, &definition.ty)
        {
            exact(schema, &mut argument.make_mut().value, &definition.ty);
            is_changed = true;
        }
    }
    is_changed
}

/// Turns such numbers in the defaults of variables into strings. Returns whether it changed any.
pub(super) fn write_defaults_exactly(
    schema: &GraphSchema,
    variables: &mut [Node<VariableDefinition>],
) -> bool {
    let mut is_changed = false;
    for variable in variables {
        let is_inexact = variable
            .default_value
            .as_ref()
            .is_some_and(|value| holds_inexact(schema, value, &variable.ty));
        if is_inexact {
            let variable = variable.make_mut();
            if let Some(value) = &mut variable.default_value {
                exact(schema, value, &variable.ty);
            }
            is_changed = true;
        }
    }
    is_changed
}

/// How a number must be written at a place of this type. `None` if it stays, or if the value is not a number.
pub(super) fn exactly(value: &Value, ty: &Type) -> Option<Value> {
    if !matches!(value, Value::Int(_) | Value::Float(_)) {
        return None;
    }
    let written = value.to_string();
    let name = ty.inner_named_type();
    match GraphSchema::scalar(name) {
        Some(Scalar::Decimal) => Some(Value::String(written)),
        Some(Scalar::Id) if !is_kept(&written) => Some(Value::String(written)),
        None if name == "Int" && written == "-0" => Some(Value::Int(0_i32.into())),
        _ => None,
    }
}

/// Whether a machine's integer prints exactly as the number was written.
fn is_kept(written: &str) -> bool {
    written
        .parse::<i64>()
        .is_ok_and(|number| number.to_string() == written)
}

fn holds_inexact(schema: &GraphSchema, value: &Value, ty: &Type) -> bool {
    match value {
        Value::List(elements) => elements
            .iter()
            .any(|one| holds_inexact(schema, one, ty.item_type())),
        Value::Object(fields) => fields.iter().any(|(name, one)| {
            schema
                .input_field(ty.inner_named_type(), name)
                .is_some_and(|field| holds_inexact(schema, one, &field.ty))
        }),
        other => exactly(other, ty).is_some(),
    }
}

fn exact(schema: &GraphSchema, value: &mut Node<Value>, ty: &Type) {
    if !holds_inexact(schema, value, ty) {
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
            if let Some(written) = exactly(number, ty) {
                *number = written;
            }
        }
    }
}
