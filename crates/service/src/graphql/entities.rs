//! `_entities` as the Apollo Federation subgraph specification has it: one bad representation costs only its own
//! entity, and each error names the entity that it is about.
//!
//! async-graphql fails the whole list for one bad representation. So bad ones are removed from the request, and put
//! back as null into the response. Then the indices in the paths of errors are shifted to match the original list.

use std::collections::HashMap;

use async_graphql::parser::types::{DocumentOperations, ExecutableDocument, Field, Selection};
use async_graphql::{
    ErrorExtensionValues, Name, PathSegment, Request, Response, ServerError, Value,
};

use crate::error_code::ErrorCode;

const FIELD: &str = "_entities";
const REPRESENTATIONS: &str = "representations";
/// The key of all our entities.
const KEY: &str = "id";

/// The entities that a request asks for.
#[derive(Debug, Default)]
pub(super) struct Entities(Vec<Asked>);

/// One list of entities in the request.
#[derive(Debug)]
struct Asked {
    /// Its key in the response.
    key: String,
    /// The indices of the removed representations, ascending.
    bad: Vec<usize>,
}

impl Entities {
    /// Removes representations from a request that have no key, or name a type that is not among the `known` ones.
    pub(super) fn take_out(request: &mut Request, known: &[&str]) -> Self {
        if !request.query.contains(FIELD) {
            return Self::default();
        }
        let operation = request.operation_name.clone();
        let Ok(document) = request.parsed_query() else {
            return Self::default();
        };
        let mut is_written_anew = false;
        let mut asked: Vec<(String, Representations)> = Vec::new();
        for field in root_fields(document, operation.as_deref()) {
            let key = field.response_key().node.to_string();
            let Some(argument) = field.get_argument(REPRESENTATIONS) else {
                continue;
            };
            // Fields with the same key are one field in the response.
            if asked.iter().any(|(known, _)| *known == key) {
                continue;
            }
            let from = match argument.node.clone().into_const() {
                Some(written) => Representations::Written(written),
                None => Representations::Given(argument.node.to_string()),
            };
            asked.push((key, from));
        }
        // Several lists may come from one variable. Its bad representations are removed only once.
        let mut of_variables: HashMap<String, Vec<usize>> = HashMap::new();
        let asked = asked
            .into_iter()
            .map(|(key, from)| {
                let bad = match from {
                    Representations::Written(mut list) => {
                        let bad = take_bad(Some(&mut list), known);
                        is_written_anew |= !bad.is_empty();
                        bad
                    }
                    Representations::Given(variable) => of_variables
                        .entry(variable)
                        .or_insert_with_key(|variable| {
                            let list = variable.strip_prefix('$');
                            let list = list.and_then(|name| request.variables.get_mut(name));
                            take_bad(list, known)
                        })
                        .clone(),
                };
                Asked { key, bad }
            })
            .collect();
        if is_written_anew {
            write_anew(request, known);
        }
        Self(asked)
    }

    /// Puts null in the places of the removed representations, and adds to each error which entity it is about.
    pub(super) fn put_back(self, response: &mut Response, known: &[&str]) {
        for Asked { key, bad } in self.0 {
            if bad.is_empty() {
                continue;
            }
            let mut none = Vec::new();
            let list = match &mut response.data {
                Value::Object(data) => match data.get_mut(key.as_str()) {
                    Some(Value::List(list)) => list,
                    _ => &mut none,
                },
                _ => &mut none,
            };
            for at in &bad {
                list.insert((*at).min(list.len()), Value::Null);
            }
            renumber(&mut response.errors, &key, &bad);
            response
                .errors
                .extend(bad.into_iter().map(|at| refusal(&key, at, known)));
        }
    }
}

/// Where representations stand in the request.
enum Representations {
    /// As a literal in the document.
    Written(Value),
    /// In the variable of this name, after `$`. Literals that contain variables belong here too, and are not changed: a
    /// removed representation would leave its variables unused, which is invalid.
    Given(String),
}

/// The `_entities` fields at the root of the operation of this name, or of the only operation if there is no name.
fn root_fields<'a>(
    document: &'a ExecutableDocument,
    operation: Option<&'a str>,
) -> impl Iterator<Item = &'a Field> {
    document
        .operations
        .iter()
        .filter(move |(name, _)| operation.is_none() || name.map(Name::as_str) == operation)
        .flat_map(|(_, operation)| &operation.node.selection_set.node.items)
        .filter_map(|selection| match &selection.node {
            Selection::Field(field) if field.node.name.node == FIELD => Some(&field.node),
            _ => None,
        })
}

/// Replaces the request's document by one without the bad representations that it holds as literals.
fn write_anew(request: &mut Request, known: &[&str]) {
    let Ok(mut document) = request.parsed_query().cloned() else {
        return;
    };
    let operations: Vec<_> = match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    };
    for selection in operations
        .into_iter()
        .flat_map(|operation| &mut operation.node.selection_set.node.items)
    {
        let Selection::Field(field) = &mut selection.node else {
            continue;
        };
        if field.node.name.node != FIELD {
            continue;
        }
        for (name, argument) in &mut field.node.arguments {
            if name.node == REPRESENTATIONS
                && let Some(mut list) = argument.node.clone().into_const()
                && !take_bad(Some(&mut list), known).is_empty()
            {
                argument.node = list.into_value();
            }
        }
    }
    request.set_parsed_query(document);
}

/// Removes invalid representations from a list. Returns their indices in the original list.
fn take_bad(list: Option<&mut Value>, known: &[&str]) -> Vec<usize> {
    let mut bad = Vec::new();
    let Some(Value::List(list)) = list else {
        return bad;
    };
    let mut at = 0;
    list.retain(|one| {
        let is_good = is_representation(one, known);
        if !is_good {
            bad.push(at);
        }
        at += 1;
        is_good
    });
    bad
}

fn is_representation(value: &Value, known: &[&str]) -> bool {
    let Value::Object(members) = value else {
        return false;
    };
    let is_known = match members.get("__typename") {
        Some(Value::String(name)) => known.contains(&name.as_str()),
        _ => false,
    };
    let has_key = match members.get(KEY) {
        Some(Value::String(_)) => true,
        Some(Value::Number(number)) => number.is_i64() || number.is_u64(),
        _ => false,
    };
    is_known && has_key
}

/// Shifts the indices in the paths of errors to the list as it was requested, with the `bad` ones.
fn renumber(errors: &mut [ServerError], key: &str, bad: &[usize]) {
    for error in errors {
        if let [PathSegment::Field(first), PathSegment::Index(index), ..] =
            error.path.as_mut_slice()
            && first == key
        {
            for at in bad {
                *index += usize::from(*at <= *index);
            }
        }
    }
}

fn refusal(key: &str, at: usize, known: &[&str]) -> ServerError {
    let mut extensions = ErrorExtensionValues::default();
    extensions.set("code", ErrorCode::BAD_USER_INPUT.as_str());
    extensions.set("field", format!("representations[{at}]"));
    let mut error = ServerError::new(
        format!(
            "a representation has a `__typename` ({}) and an `{KEY}` (a string or a whole number)",
            known.join(", ")
        ),
        None,
    );
    error.path = vec![PathSegment::Field(key.to_owned()), PathSegment::Index(at)];
    error.extensions = Some(extensions);
    error
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{
        EmptyMutation, EmptySubscription, ID, Object, Schema, SimpleObject, Variables,
    };
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::graphql::{ApiError, ErrorCodes};

    #[derive(SimpleObject)]
    #[graphql(complex)]
    struct Customer {
        id: ID,
    }

    #[async_graphql::ComplexObject]
    impl Customer {
        async fn orders(&self) -> async_graphql::Result<Option<i32>> {
            match self.id.as_str() {
                "no-orders" => Ok(None),
                id if id.starts_with("away") => {
                    Err(ApiError::unavailable(format!("{id} is away")).into())
                }
                _ => Ok(Some(1)),
            }
        }
        async fn revision(&self) -> async_graphql::Result<i32> {
            match self.id.as_str() {
                "away-1" => Err(ApiError::unavailable("away").into()),
                _ => Ok(1),
            }
        }
    }

    struct Query;

    #[Object]
    impl Query {
        #[graphql(entity)]
        async fn customer(&self, id: ID) -> Option<Customer> {
            Some(Customer { id })
        }
    }

    async fn answer(representations: Json) -> Json {
        ask("id orders", representations).await
    }

    async fn ask(fields: &str, representations: Json) -> Json {
        let query = format!(
            "query($r:[_Any!]!){{e:_entities(representations:$r){{...on Customer{{{fields}}}}}}}"
        );
        let variables = Variables::from_json(json!({ "r": representations }));
        execute(Request::new(query).variables(variables)).await
    }

    async fn execute(mut request: Request) -> Json {
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
            .enable_federation()
            .extension(ErrorCodes)
            .finish();
        let entities = Entities::take_out(&mut request, &["Customer"]);
        let mut response = schema.execute(request).await;
        entities.put_back(&mut response, &["Customer"]);
        serde_json::to_value(response).unwrap()
    }

    fn customer(id: &str) -> Json {
        json!({"__typename": "Customer", "id": id})
    }

    fn paths(answer: &Json) -> Vec<Json> {
        let errors = answer["errors"].as_array().unwrap();
        errors.iter().map(|error| error["path"].clone()).collect()
    }

    #[tokio::test]
    async fn a_bad_representation_is_null_at_its_place_and_the_others_are_there() {
        for bad in [
            json!({"__typename": "Nothing", "id": "1"}),
            json!({"__typename": "Customer"}),
            json!({"__typename": "Customer", "id": {}}),
            json!({"__typename": "Customer", "id": 1.5}),
            json!({"id": "1"}),
            json!("Customer"),
            json!(null),
        ] {
            let answer = answer(json!([customer("a"), bad, customer("b"), bad])).await;
            assert_eq!(
                answer["data"]["e"],
                json!([{"id": "a", "orders": 1}, null, {"id": "b", "orders": 1}, null]),
                "{answer}"
            );
            assert_eq!(paths(&answer), [json!(["e", 1]), json!(["e", 3])]);
            assert_eq!(answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT");
        }
    }

    #[tokio::test]
    async fn a_bad_representation_in_the_document_itself_is_null_at_its_place_too() {
        let query = r#"{e:_entities(representations:[{__typename:"Customer",id:"a"},{__typename:"Nothing",id:"1"},{id:"1"},{__typename:"Customer",id:"b"}]){...on Customer{id}}}"#;
        let answer = execute(Request::new(query)).await;
        assert_eq!(
            answer["data"]["e"],
            json!([{"id": "a"}, null, null, {"id": "b"}]),
            "{answer}"
        );
        assert_eq!(paths(&answer), [json!(["e", 1]), json!(["e", 2])]);
    }

    #[tokio::test]
    async fn lists_of_one_variable_are_each_as_long_as_it_is() {
        let query = "query($r:[_Any!]!){a:_entities(representations:$r){...on Customer{id}}
            b:_entities(representations:$r){...on Customer{id}}
            a:_entities(representations:$r){...on Customer{orders}}}";
        let all = json!({"r": [{"id": "1"}, customer("c"), null]});
        let request = Request::new(query).variables(Variables::from_json(all));
        let answer = execute(request).await;
        assert_eq!(
            answer["data"],
            json!({
                "a": [null, {"id": "c", "orders": 1}, null],
                "b": [null, {"id": "c"}, null]
            }),
            "{answer}"
        );
        assert_eq!(
            paths(&answer),
            [
                json!(["a", 0]),
                json!(["a", 2]),
                json!(["b", 0]),
                json!(["b", 2])
            ]
        );
    }

    #[tokio::test]
    async fn what_another_operation_of_the_document_asks_for_is_not_looked_at() {
        let query = "query A($r:[_Any!]!){e:_entities(representations:$r){...on Customer{id}}}
            query B($s:[_Any!]!){e:_entities(representations:$s){...on Customer{id}}}";
        let all = json!({"r": [{"id": "1"}, {"id": "2"}], "s": [customer("b"), {"id": "1"}]});
        let request = Request::new(query)
            .operation_name("B")
            .variables(Variables::from_json(all));
        let answer = execute(request).await;
        assert_eq!(answer["data"]["e"], json!([{"id": "b"}, null]), "{answer}");
        assert_eq!(paths(&answer), [json!(["e", 1])]);
    }

    #[tokio::test]
    async fn an_error_of_an_entity_says_which() {
        let all = json!([customer("away-1"), customer("a"), 5, customer("away-2")]);
        let answer = answer(all).await;
        assert_eq!(
            paths(&answer),
            [
                json!(["e", 0, "orders"]),
                json!(["e", 3, "orders"]),
                json!(["e", 2])
            ],
            "{answer}"
        );
        assert_eq!(answer["errors"][1]["message"], "away-2 is away");
        assert_eq!(
            answer["data"]["e"][0],
            json!({"id": "away-1", "orders": null})
        );
    }

    #[tokio::test]
    async fn an_entity_without_what_it_must_have_is_null_and_no_other() {
        let all = json!([customer("a"), null, customer("away-1"), customer("away-2")]);
        let answer = ask("id revision", all).await;
        assert_eq!(
            answer["data"]["e"],
            json!([{"id": "a", "revision": 1}, null, null, {"id": "away-2", "revision": 1}])
        );
        assert_eq!(
            paths(&answer),
            [json!(["e", 2, "revision"]), json!(["e", 1])]
        );
    }

    #[tokio::test]
    async fn an_error_is_about_what_failed_and_not_about_what_is_null() {
        let answer = answer(json!([customer("no-orders"), customer("away-1")])).await;
        assert_eq!(paths(&answer), [json!(["e", 1, "orders"])], "{answer}");
    }

    #[tokio::test]
    async fn nothing_is_changed_where_all_is_well() {
        let answer = answer(json!([customer("a"), {"__typename": "Customer", "id": 7}])).await;
        assert_eq!(
            answer,
            json!({"data": {"e": [{"id": "a", "orders": 1}, {"id": "7", "orders": 1}]}})
        );
    }
}
