//! Checks decimal numbers in documents. As in variables, an invalid one is refused, and the error names its field.

use apollo_compiler::executable::{ExecutableDocument, Value};

use super::diagnostics::place;
use super::error::RequestError;
use super::schema::{GraphSchema, Scalar};
use super::values::{Placed, in_defaults, in_set};
use super::variables::{is_decimal, no_decimal};

/// Checks the values of all arguments of a document and the defaults of its variables.
///
/// # Errors
/// When a decimal number is invalid. The error names the field.
pub(super) fn check(
    schema: &GraphSchema,
    document: &ExecutableDocument,
) -> Result<(), RequestError> {
    let mut look = |placed: &Placed<'_>, path: &str| {
        if is_right(placed) {
            return Ok(());
        }
        let location = place(placed.value.location(), &document.sources);
        Err(no_decimal(path).at(location))
    };
    for operation in document.operations.iter() {
        in_defaults(schema, operation, &mut look)?;
        in_set(schema, &operation.selection_set, &mut look)?;
    }
    for fragment in document.fragments.values() {
        in_set(schema, &fragment.selection_set, &mut look)?;
    }
    Ok(())
}

fn is_right(placed: &Placed<'_>) -> bool {
    if GraphSchema::scalar(placed.ty.inner_named_type()) != Some(Scalar::Decimal) {
        return true;
    }
    let value: &Value = placed.value;
    match value {
        Value::Null | Value::Variable(_) => true,
        Value::List(_) => placed.ty.is_list(),
        Value::String(text) => is_decimal(text),
        number @ (Value::Int(_) | Value::Float(_)) => is_decimal(&number.to_string()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WRONG: [&str; 9] = [
        r#""abc""#, r#""""#, "1e5", "true", "ABC", r#""1.""#, r#""1e5""#, "{a:1}", "[1]",
    ];
    const RIGHT: [&str; 4] = [r#""12.50""#, "12.50", "7", r#""-0.1""#];

    fn checked(document: &str) -> Result<(), RequestError> {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), document, "document").unwrap();
        check(&schema, &document)
    }

    fn refused_at(document: &str, field: &str) {
        let error = checked(document).unwrap_err();
        let message = error.message();
        assert!(
            message.contains(&format!("`{field}`")),
            "{document}: {message}"
        );
        assert!(message.contains("12.50"), "{document}: {message}");
        assert!(error.location().is_some(), "{document}");
    }

    #[test]
    fn what_is_no_decimal_is_refused_with_its_field() {
        let document = |price: &str| {
            format!(
                r#"mutation($p:Decimal!){{...m}} fragment m on Mutation{{placeOrder(input:{{customerId:1,items:[{{quantity:1,product:{{guid:"g",title:"abc",price:$p}}}},{{quantity:1,product:{{guid:"g",title:"abc",price:{price}}}}}]}}){{order{{id}}}}}}"#
            )
        };
        for wrong in WRONG {
            refused_at(&document(wrong), "input.items[1].product.price");
        }
        for right in RIGHT.into_iter().chain(["$p"]) {
            checked(&document(right)).unwrap();
        }
    }

    #[test]
    fn what_is_no_decimal_is_refused_in_the_default_of_a_variable_too() {
        let alone = |price: &str| {
            format!(
                r#"mutation($p:Decimal={price}){{placeOrder(input:{{customerId:1,items:[{{quantity:1,product:{{guid:"g",title:"abc",price:$p}}}}]}}){{order{{id}}}}}}"#
            )
        };
        let whole = |price: &str| {
            format!(
                r#"mutation($i:PlaceOrderInput={{customerId:1,items:[{{quantity:1,product:{{guid:"g",title:"abc",price:{price}}}}}]}}){{placeOrder(input:$i){{order{{id}}}}}}"#
            )
        };
        for wrong in WRONG {
            refused_at(&alone(wrong), "p");
            refused_at(&whole(wrong), "i.items[0].product.price");
        }
        for right in RIGHT {
            checked(&alone(right)).unwrap();
            checked(&whole(right)).unwrap();
        }
    }
}
