//! Refuses input objects that give a field twice (GraphQL, Input Object Field Uniqueness).
//!
//! Neither the parser nor the validator refuses them. Only one of the two values would count, and readers differ in
//! which one.

use std::collections::HashSet;

use apollo_compiler::Node;
use apollo_compiler::ast::{Argument, Definition, DirectiveList, Document, Selection, Value};

use super::diagnostics::place;
use super::error::RequestError;

/// Checks all values of a document: in arguments of fields and directives, and in defaults of variables.
///
/// # Errors
/// When an object has a field twice. The error names the field.
pub(super) fn check(document: &Document) -> Result<(), RequestError> {
    for definition in &document.definitions {
        match definition {
            Definition::OperationDefinition(operation) => {
                for variable in &operation.variables {
                    if let Some(value) = &variable.default_value {
                        in_value(document, value, &mut variable.name.to_string())?;
                    }
                    in_directives(document, &variable.directives)?;
                }
                in_directives(document, &operation.directives)?;
                in_set(document, &operation.selection_set)?;
            }
            Definition::FragmentDefinition(fragment) => {
                in_directives(document, &fragment.directives)?;
                in_set(document, &fragment.selection_set)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn in_set(document: &Document, set: &[Selection]) -> Result<(), RequestError> {
    for selection in set {
        match selection {
            Selection::Field(field) => {
                in_arguments(document, &field.arguments)?;
                in_directives(document, &field.directives)?;
                in_set(document, &field.selection_set)?;
            }
            Selection::InlineFragment(fragment) => {
                in_directives(document, &fragment.directives)?;
                in_set(document, &fragment.selection_set)?;
            }
            Selection::FragmentSpread(spread) => in_directives(document, &spread.directives)?,
        }
    }
    Ok(())
}

fn in_directives(document: &Document, directives: &DirectiveList) -> Result<(), RequestError> {
    let mut directives = directives.0.iter();
    directives.try_for_each(|directive| in_arguments(document, &directive.arguments))
}

fn in_arguments(document: &Document, arguments: &[Node<Argument>]) -> Result<(), RequestError> {
    for argument in arguments {
        in_value(document, &argument.value, &mut argument.name.to_string())?;
    }
    Ok(())
}

fn in_value(document: &Document, value: &Value, path: &mut String) -> Result<(), RequestError> {
    let length = path.len();
    match value {
        Value::List(elements) => {
            for (at, element) in elements.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                in_value(document, element, path)?;
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            let mut seen = HashSet::with_capacity(members.len());
            for (name, member) in members {
                path.push('.');
                path.push_str(name);
                if !seen.insert(name.as_str()) {
                    let location = place(name.location(), &document.sources);
                    let message = format!("`{path}` is given twice: expected one value");
                    return Err(
                        RequestError::validation(message, location).with("field", path.as_str())
                    );
                }
                in_value(document, member, path)?;
                path.truncate(length);
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;

    #[test]
    fn a_field_that_an_object_has_twice_is_refused_wherever_the_object_stands() {
        for (document, field, column) in [
            (
                r#"mutation{createCustomer(input:{id:"a",id:"b",name:{firstName:"x",lastName:"y"}}){customer{id}}}"#,
                "input.id",
                39,
            ),
            (
                r#"mutation{...m} fragment m on Mutation{placeOrder(input:{customerId:1,items:[{quantity:1,product:{guid:"g",title:"t",price:1,price:2}}]}){order{id}}}"#,
                "input.items[0].product.price",
                125,
            ),
            (
                "mutation($i:NameInput={firstName:\"x\",\nlastName:\"y\",firstName:\"z\"}){createCustomer(input:{id:1,name:$i}){customer{id}}}",
                "i.firstName",
                14,
            ),
            (
                "{customers{nodes{id @include(if:{a:[{b:1,b:2}]})}}}",
                "if.a[0].b",
                42,
            ),
        ] {
            for is_federated in [false, true] {
                let refused = documents(is_federated)
                    .operation(document, None)
                    .unwrap_err();
                let error = refused.errors()[0].clone();
                assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
                assert_eq!(error["extensions"]["field"], field, "{document}: {error}");
                assert_eq!(
                    error["locations"][0]["column"], column,
                    "{document}: {error}"
                );
            }
        }
        let same_names = r#"mutation{placeOrder(input:{customerId:1,items:[{quantity:1,product:{guid:"g",title:"t",price:1}},{quantity:1,product:{guid:"g",title:"t",price:1}}]}){order{id}}}"#;
        documents(false).operation(same_names, None).unwrap();
    }
}
