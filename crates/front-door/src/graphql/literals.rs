//! Decimal numbers in documents: what is none is refused with the field that holds it, as it is in variables.

use apollo_compiler::ast::Type;
use apollo_compiler::executable::{ExecutableDocument, Selection, SelectionSet, Value};

use super::error::RequestError;
use super::schema::{GraphSchema, Scalar};
use super::variables::{is_decimal, no_decimal};

/// Looks at the values of all arguments of a document.
///
/// # Errors
/// When a decimal is none: says which field.
pub(super) fn check(
    schema: &GraphSchema,
    document: &ExecutableDocument,
) -> Result<(), RequestError> {
    let operations = document.operations.iter().map(|one| &one.selection_set);
    let fragments = document.fragments.values().map(|one| &one.selection_set);
    operations
        .chain(fragments)
        .try_for_each(|set| of_set(schema, set))
}

fn of_set(schema: &GraphSchema, set: &SelectionSet) -> Result<(), RequestError> {
    for selection in &set.selections {
        match selection {
            Selection::Field(field) => {
                for argument in &field.arguments {
                    if let Some(known) = field.definition.argument_by_name(&argument.name) {
                        let mut path = argument.name.to_string();
                        of_value(schema, &argument.value, &known.ty, &mut path)?;
                    }
                }
                of_set(schema, &field.selection_set)?;
            }
            Selection::InlineFragment(fragment) => of_set(schema, &fragment.selection_set)?,
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

fn of_value(
    schema: &GraphSchema,
    value: &Value,
    ty: &Type,
    path: &mut String,
) -> Result<(), RequestError> {
    if !schema.is_noted(ty) {
        return Ok(());
    }
    let length = path.len();
    match value {
        Value::Null | Value::Variable(_) => {}
        Value::List(elements) => {
            for (at, element) in elements.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                of_value(schema, element, ty.item_type(), path)?;
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (name, member) in members {
                if let Some(field) = schema.input_field(ty.inner_named_type(), name) {
                    path.push('.');
                    path.push_str(name);
                    of_value(schema, member, &field.ty, path)?;
                    path.truncate(length);
                }
            }
        }
        other if GraphSchema::scalar(ty.inner_named_type()) == Some(Scalar::Decimal) => {
            let is_right = match other {
                Value::String(text) => is_decimal(text),
                number @ (Value::Int(_) | Value::Float(_)) => is_decimal(&number.to_string()),
                _ => false,
            };
            if !is_right {
                return Err(no_decimal(path));
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn checked(price: &str) -> Result<(), RequestError> {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        let document = format!(
            r#"mutation($p:Decimal!){{...m}} fragment m on Mutation{{placeOrder(input:{{customerId:1,items:[{{quantity:1,product:{{guid:"g",title:"abc",price:$p}}}},{{quantity:1,product:{{guid:"g",title:"abc",price:{price}}}}}]}}){{order{{id}}}}}}"#
        );
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        check(&schema, &document)
    }

    #[test]
    fn what_is_no_decimal_is_refused_with_its_field() {
        for wrong in [
            r#""abc""#, r#""""#, "1e5", "true", "ABC", r#""1.""#, r#""1e5""#,
        ] {
            let error = checked(wrong).unwrap_err();
            assert!(
                error.message().contains("input.items[1].product.price"),
                "{wrong}"
            );
            assert!(error.message().contains("12.50"), "{wrong}");
        }
        for right in [r#""12.50""#, "12.50", "7", r#""-0.1""#, "$p"] {
            checked(right).unwrap();
        }
    }
}
