//! Checks whether each variable is allowed at its place (GraphQL, All Variable Usages Are Allowed).
//!
//! The validator checks only variables that are a whole argument, and wrongly accepts a default of null as a value.

use std::collections::{HashMap, HashSet};

use apollo_compiler::Name;
use apollo_compiler::ast::Type;
use apollo_compiler::executable::{ExecutableDocument, Operation, Value, VariableDefinition};

use super::diagnostics::place;
use super::error::{Location, RequestError};
use super::references::spreads;
use super::schema::GraphSchema;
use super::values::{Placed, in_set};

/// A variable at a place.
struct Usage<'a> {
    variable: &'a Name,
    /// The type of the place.
    ty: &'a Type,
    has_default: bool,
    path: String,
    location: Option<Location>,
}

/// Checks every place of every variable of a document.
///
/// # Errors
/// When a variable does not fit the type of its place. The error names the place.
pub(super) fn check(
    schema: &GraphSchema,
    document: &ExecutableDocument,
) -> Result<(), RequestError> {
    for operation in document.operations.iter() {
        for usage in usages(schema, document, operation)? {
            // The validator has already refused undeclared variables.
            let Some(variable) = declared(operation, usage.variable) else {
                continue;
            };
            if !is_allowed(variable, usage.ty, usage.has_default) {
                return Err(refused(variable, &usage));
            }
        }
    }
    Ok(())
}

/// The nullable variables that occur at non-null places: maps the name of each variable to the type of its place.
pub(super) fn without_null(
    schema: &GraphSchema,
    document: &ExecutableDocument,
    operation: &Operation,
) -> HashMap<String, Type> {
    usages(schema, document, operation)
        .unwrap_or_default()
        .into_iter()
        .filter(|usage| {
            usage.ty.is_non_null()
                && declared(operation, usage.variable)
                    .is_some_and(|variable| !variable.ty.is_non_null())
        })
        .map(|usage| (usage.variable.to_string(), usage.ty.clone()))
        .collect()
}

fn declared<'a>(operation: &'a Operation, name: &Name) -> Option<&'a VariableDefinition> {
    let found = operation.variables.iter().find(|known| known.name == *name);
    found.map(AsRef::as_ref)
}

fn usages<'a>(
    schema: &'a GraphSchema,
    document: &'a ExecutableDocument,
    operation: &'a Operation,
) -> Result<Vec<Usage<'a>>, RequestError> {
    let mut found = Vec::new();
    if operation.variables.is_empty() {
        return Ok(found);
    }
    let mut used = HashSet::new();
    spreads(document, &operation.selection_set, &mut used);
    let mut look = |placed: &Placed<'a>, path: &str| {
        let value: &'a Value = placed.value;
        if let Value::Variable(variable) = value {
            found.push(Usage {
                variable,
                ty: placed.ty,
                has_default: placed.has_default,
                path: path.to_owned(),
                location: place(placed.value.location(), &document.sources),
            });
        }
        Ok(())
    };
    in_set(schema, &operation.selection_set, &mut look)?;
    for (name, fragment) in &document.fragments {
        if used.contains(name) {
            in_set(schema, &fragment.selection_set, &mut look)?;
        }
    }
    Ok(found)
}

/// Whether a variable is allowed at a place of this type (GraphQL, IsVariableUsageAllowed).
fn is_allowed(variable: &VariableDefinition, ty: &Type, has_default: bool) -> bool {
    let default = variable.default_value.as_ref();
    let stands_in = has_default || default.is_some_and(|value| !value.is_null());
    if ty.is_non_null() && !variable.ty.is_non_null() && stands_in {
        return variable.ty.is_assignable_to(&ty.clone().nullable());
    }
    variable.ty.is_assignable_to(ty)
}

fn refused(variable: &VariableDefinition, usage: &Usage<'_>) -> RequestError {
    let Usage { ty, path, .. } = usage;
    let VariableDefinition { name, ty: own, .. } = variable;
    let message = format!(
        "the variable `${name}` of the type `{own}` cannot be used for `{path}`, which is of the type `{ty}`"
    );
    RequestError::validation(message, usage.location).with("field", path.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::test_support::documents;

    #[test]
    fn a_variable_that_does_not_fit_its_place_inside_of_an_object_or_a_list_is_refused_there() {
        let name = |variable: &str| {
            format!(
                r#"mutation({variable}){{updateCustomer(id:"a",input:{{name:{{lastName:"b",firstName:$f}}}}){{customer{{id}}}}}}"#
            )
        };
        let item = |variable: &str, items: &str| {
            format!(
                "mutation({variable}){{...m}} fragment m on Mutation{{placeOrder(input:{{customerId:1,items:{items}}}){{order{{id}}}}}}"
            )
        };
        let product = r#"product:{guid:"g",title:"t",price:1}"#;
        for (document, field) in [
            (name("$f:String"), "input.name.firstName"),
            (name("$f:String=null"), "input.name.firstName"),
            (item("$i:OrderItemInput", "[$i]"), "input.items[0]"),
            (
                item("$n:Int", &format!("[{{quantity:$n,{product}}}]")),
                "input.items[0].quantity",
            ),
            (
                item("$n:Int", &format!("{{quantity:$n,{product}}}")),
                "input.items.quantity",
            ),
            ("query($i:ID=null){customer(id:$i){id}}".to_owned(), "id"),
        ] {
            let column = document.rfind('$').unwrap() + 1;
            for is_federated in [false, true] {
                let documents = documents(is_federated);
                let refused = documents.operation(&document, None).unwrap_err();
                let error = refused.errors()[0].clone();
                assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{error}");
                assert_eq!(error["extensions"]["field"], field, "{document}: {error}");
                let place = &error["locations"][0];
                assert_eq!(place["line"], 1, "{document}: {error}");
                assert_eq!(place["column"], column, "{document}: {error}");
            }
        }
        for document in [
            name("$f:String!"),
            name("$f:String=\"x\""),
            item("$i:OrderItemInput!", "[$i]"),
            item("$i:[OrderItemInput!]!", "$i"),
            item("$n:Int!", &format!("[{{quantity:$n,{product}}}]")),
        ] {
            documents(false).operation(&document, None).unwrap();
        }
    }

    #[test]
    fn a_variable_is_known_that_null_must_not_be_given_to() {
        let documents = documents(false);
        let document = "query($n:Int,$s:OrderStatus,$m:Int!){orders(first:$n,status:$s){nodes{id}} customers(first:$m){nodes{id}}}";
        let operation = documents.operation(document, None).unwrap();
        let needed: Vec<_> = operation
            .variables
            .iter()
            .filter(|variable| variable.needed.is_some())
            .map(|variable| variable.name.as_str())
            .collect();
        assert_eq!(needed, ["n"]);
    }
}
