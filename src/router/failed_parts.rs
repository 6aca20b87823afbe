//! Replaces the response of a failed call to a service by one with an error for each part that the call was to bring.
//!
//! For a failed call the router makes one error that names no part of the client's response, or names one that no
//! client knows (`_entities`). But the router knows which object of the client's response each entity is. If a response
//! has an error for each entity, the router turns them into errors with the client's own paths. A response that
//! consists only of errors without a path, such as a refusal, is replaced in the same way.

use bytes::Bytes;
use hive_router::graphql_tools::parser::query::{
    Definition, Document, Field, OperationDefinition, Selection, SelectionSet, TypeCondition,
    Value, parse_query,
};
use serde::Deserialize;
use serde_json::{Value as Json, json};

/// The most errors with a path for one call. Errors without a path then stand for the rest.
const MOST_ERRORS: usize = 1_000;
/// The prefix of the router's own aliases, for fields that would otherwise have the same name.
const ROUTERS_ALIAS: &str = "_internal_qp_alias";

/// The content of an error, apart from its path.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) message: String,
    pub(super) extensions: Json,
}

impl Told {
    fn at(&self, path: Option<&Json>) -> Json {
        let mut error = json!({ "message": self.message, "extensions": self.extensions });
        if let Some(path) = path {
            error["path"] = path.clone();
        }
        error
    }
}

/// The response that takes the place of a failed call's: the same errors for each part. `None` where the operation
/// cannot be parsed, or there are no errors. `query` is the document that the router sent; `variables` holds the
/// representations of entities by variable.
pub(super) fn failed_parts(
    query: &str,
    variables: Option<&[(&str, Vec<u8>)]>,
    told: &[Told],
) -> Option<Bytes> {
    let document = parse_query::<&str>(query).ok()?;
    let mut data = serde_json::Map::new();
    let mut paths = Vec::new();
    for field in fields(&document, root(&document)?, None) {
        let key = response_key(field);
        if field.name != "_entities" {
            paths.push(json!([key]));
            continue;
        }
        let types = types(field, variables.unwrap_or_default());
        data.insert(key.to_owned(), vec![Json::Null; types.len()].into());
        for (at, name) in types.iter().enumerate() {
            for part in fields(&document, &field.selection_set, Some(name)) {
                paths.push(json!([key, at, response_key(part)]));
            }
        }
    }
    let all = paths.len() * told.len();
    let mut errors: Vec<Json> = paths
        .iter()
        .flat_map(|path| told.iter().map(move |told| told.at(Some(path))))
        .take(MOST_ERRORS)
        .collect();
    if all > MOST_ERRORS {
        errors.extend(told.iter().map(|told| told.at(None)));
    }
    if all == 0 {
        return None;
    }
    let data = if data.is_empty() {
        Json::Null
    } else {
        data.into()
    };
    Some(json!({ "data": data, "errors": errors }).to_string().into())
}

type Selections<'a> = SelectionSet<'a, &'a str>;

fn root<'d, 'a>(document: &'d Document<'a, &'a str>) -> Option<&'d Selections<'a>> {
    document
        .definitions
        .iter()
        .find_map(|definition| match definition {
            Definition::Operation(operation) => Some(match operation {
                OperationDefinition::SelectionSet(set) => set,
                OperationDefinition::Query(query) => &query.selection_set,
                OperationDefinition::Mutation(mutation) => &mutation.selection_set,
                OperationDefinition::Subscription(subscription) => &subscription.selection_set,
            }),
            Definition::Fragment(_) => None,
        })
}

/// The fields that a selection selects on an object of this type, with fragments resolved, each response key once.
fn fields<'d, 'a>(
    document: &'d Document<'a, &'a str>,
    set: &'d Selections<'a>,
    of: Option<&str>,
) -> Vec<&'d Field<'a, &'a str>> {
    let mut found: Vec<&Field<'a, &'a str>> = Vec::new();
    let mut sets = vec![set];
    // The router's documents have no cycles of fragments. The bound is a precaution.
    for _ in 0..1_000 {
        let Some(set) = sets.pop() else { break };
        for selection in &set.items {
            match selection {
                Selection::Field(field) => {
                    let key = response_key(field);
                    if field.name != "__typename"
                        && found.iter().all(|known| response_key(known) != key)
                    {
                        found.push(field);
                    }
                }
                Selection::InlineFragment(fragment) => {
                    if applies(fragment.type_condition.as_ref(), of) {
                        sets.push(&fragment.selection_set);
                    }
                }
                Selection::FragmentSpread(spread) => {
                    let named =
                        document
                            .definitions
                            .iter()
                            .find_map(|definition| match definition {
                                Definition::Fragment(fragment)
                                    if fragment.name == spread.fragment_name =>
                                {
                                    Some(fragment)
                                }
                                _ => None,
                            });
                    if let Some(fragment) = named
                        && applies(Some(&fragment.type_condition), of)
                    {
                        sets.push(&fragment.selection_set);
                    }
                }
            }
        }
    }
    found
}

fn applies<'a>(condition: Option<&TypeCondition<'a, &'a str>>, of: Option<&str>) -> bool {
    match (condition, of) {
        (Some(TypeCondition::On(name)), Some(of)) => *name == of,
        _ => true,
    }
}

fn response_key<'a>(field: &Field<'a, &'a str>) -> &'a str {
    field
        .alias
        .filter(|alias| !alias.starts_with(ROUTERS_ALIAS))
        .unwrap_or(field.name)
}

/// The types of the requested entities, in order.
fn types<'a>(field: &Field<'a, &'a str>, variables: &[(&str, Vec<u8>)]) -> Vec<String> {
    #[derive(Deserialize)]
    struct Representation {
        #[serde(rename = "__typename", default)]
        name: String,
    }
    let variable = field
        .arguments
        .iter()
        .find_map(|(name, value)| match value {
            Value::Variable(variable) if *name == "representations" => Some(*variable),
            _ => None,
        });
    variables
        .iter()
        .find(|(name, _)| Some(*name) == variable)
        .and_then(|(_, json)| serde_json::from_slice::<Vec<Representation>>(json).ok())
        .unwrap_or_default()
        .into_iter()
        .map(|representation| representation.name)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(message: &str) -> Told {
        Told {
            message: message.to_owned(),
            extensions: json!({"code": "C"}),
        }
    }

    fn paths(query: &str, variables: &[(&str, Vec<u8>)]) -> (Json, Vec<Json>) {
        let answer = failed_parts(query, Some(variables), &[told("m")]).unwrap();
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        let paths = answer["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["path"].clone())
            .collect();
        (answer["data"].clone(), paths)
    }

    #[test]
    fn each_root_field_is_a_part() {
        let (data, parts) = paths(
            "query($a:ID!){a:customer(id:$a){id} orders{nodes{id}}}",
            &[],
        );
        assert_eq!(data, Json::Null);
        assert_eq!(parts, [json!(["a"]), json!(["orders"])]);
    }

    #[test]
    fn each_field_of_each_entity_is_a_part() {
        let query = "query($representations:[_Any!]!){_entities(representations:$representations){...on Customer{__typename revision _internal_qp_alias_0:createdAt} ...on Order{total}}}";
        let representations =
            br#"[{"__typename":"Customer","id":"1"},{"__typename":"Order","id":"2"}]"#;
        let (data, parts) = paths(query, &[("representations", representations.to_vec())]);
        assert_eq!(data, json!({"_entities": [null, null]}));
        assert_eq!(
            parts,
            [
                json!(["_entities", 0, "revision"]),
                json!(["_entities", 0, "createdAt"]),
                json!(["_entities", 1, "total"]),
            ]
        );
    }

    #[test]
    fn several_sets_of_entities_in_one_call_are_told_apart() {
        let query = "query($r0:[_Any!]!,$r1:[_Any!]!){_e0:_entities(representations:$r0){...a} _e1:_entities(representations:$r1){...on Customer{name{firstName}}}} fragment a on Customer{revision}";
        let one = br#"[{"__typename":"Customer","id":"1"}]"#.to_vec();
        let (data, parts) = paths(query, &[("r0", one.clone()), ("r1", one)]);
        assert_eq!(data, json!({"_e0": [null], "_e1": [null]}));
        assert_eq!(
            parts,
            [json!(["_e0", 0, "revision"]), json!(["_e1", 0, "name"])]
        );
    }

    #[test]
    fn each_part_of_a_page_has_its_error_and_one_stands_for_what_is_more_than_that() {
        let query = "query($r:[_Any!]!){_entities(representations:$r){...on Customer{a b c}}}";
        let of = |count| {
            let many = vec![json!({"__typename": "Customer"}); count];
            paths(query, &[("r", serde_json::to_vec(&many).unwrap())]).1
        };
        assert_eq!(of(100).len(), 300);
        let parts = of(400);
        assert_eq!(parts.len(), MOST_ERRORS + 1);
        assert!(parts.iter().filter(|path| path.is_null()).count() == 1);
        assert!(failed_parts("{", None, &[told("m")]).is_none());
    }

    #[test]
    fn each_error_is_told_of_each_part() {
        let told = [told("m"), told("n")];
        let answer = failed_parts("{a b}", None, &told).unwrap();
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        let said: Vec<_> = answer["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|error| format!("{}{}", error["path"][0], error["message"]))
            .collect();
        assert_eq!(said, [r#""a""m""#, r#""a""n""#, r#""b""m""#, r#""b""n""#]);
        assert_eq!(answer["errors"][3]["extensions"], json!({"code": "C"}));
        assert!(failed_parts("{a}", None, &[]).is_none());
    }
}
