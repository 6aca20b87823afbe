//! Writes the defaults of variables as JSON, so that they are forwarded as if the client had sent them (GraphQL,
//! CoerceVariableValues).

use apollo_compiler::ast::Type;
use apollo_compiler::executable::Value;
use serde_json::Value as Json;

use super::numbers::exactly;
use super::schema::GraphSchema;

/// The JSON text of the default of a variable with this type.
pub(super) fn json(schema: &GraphSchema, value: &Value, ty: &Type) -> String {
    match value {
        // Numbers from a client become strings too, which keep every digit.
        Value::Int(_) | Value::Float(_) if GraphSchema::scalar(ty.inner_named_type()).is_some() => {
            Json::from(value.to_string()).to_string()
        }
        Value::Int(_) | Value::Float(_) => match exactly(value, ty) {
            Some(written) => written.to_string(),
            None => value.to_string(),
        },
        Value::List(elements) => {
            let elements = elements.iter().map(|one| json(schema, one, ty.item_type()));
            format!("[{}]", elements.collect::<Vec<_>>().join(","))
        }
        Value::Object(members) => {
            let members = members.iter().map(|(name, one)| {
                let field = schema.input_field(ty.inner_named_type(), name);
                // Inside a scalar that only the services know, every value counts as that scalar.
                let value = json(schema, one, field.map_or(ty, |field| field.ty.as_ref()));
                format!("{}:{value}", Json::from(name.as_str()))
            });
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::String(text) => Json::from(text.as_str()).to_string(),
        Value::Enum(name) => Json::from(name.as_str()).to_string(),
        Value::Boolean(is_true) => is_true.to_string(),
        // A default contains no variables.
        Value::Null | Value::Variable(_) => "null".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use apollo_compiler::ExecutableDocument;

    use super::*;

    #[test]
    fn a_default_is_written_with_every_digit_and_every_escape() {
        let schema =
            GraphSchema::from_sdl(include_str!("../../../../schema/supergraph.graphql")).unwrap();
        for (variable, used, written) in [
            ("$n:Int=-0", "customers(first:$n){nodes{id}}", "0"),
            ("$n:Int=null", "customers(first:$n){nodes{id}}", "null"),
            (
                "$i:ID=99999999999999999999",
                "customer(id:$i){id}",
                r#""99999999999999999999""#,
            ),
            ("$i:ID=7", "customer(id:$i){id}", r#""7""#),
            (
                "$i:ID=\"a\\\"\\n😀\"",
                "customer(id:$i){id}",
                r#""a\"\n😀""#,
            ),
            (
                "$s:OrderStatus=PLACED",
                "orders(status:$s){nodes{id}}",
                r#""PLACED""#,
            ),
        ] {
            let document = format!("query({variable}){{{used}}}");
            let document =
                ExecutableDocument::parse_and_validate(schema.valid(), &document, "document")
                    .unwrap();
            let operation = document.operations.iter().next().unwrap();
            let variable = operation.variables.first().unwrap();
            let value = variable.default_value.as_ref().unwrap();
            assert_eq!(json(&schema, value, &variable.ty), written, "{document}");
        }
        let whole = r#"mutation($i:PlaceOrderInput={customerId:"1",items:[{quantity:1,product:{guid:"g",title:"t",price:123456789012.12345678}}]}){placeOrder(input:$i){order{id}}}"#;
        let document =
            ExecutableDocument::parse_and_validate(schema.valid(), whole, "document").unwrap();
        let operation = document.operations.iter().next().unwrap();
        let variable = operation.variables.first().unwrap();
        let value = variable.default_value.as_ref().unwrap();
        assert_eq!(
            json(&schema, value, &variable.ty),
            r#"{"customerId":"1","items":[{"quantity":1,"product":{"guid":"g","title":"t","price":"123456789012.12345678"}}]}"#
        );
    }
}
