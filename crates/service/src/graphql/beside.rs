//! Errors beside a field's value, for a field that returns only a part of what was requested. Without the error the
//! part would look like the whole.

use std::sync::PoisonError;

use async_graphql::{Context, PathSegment, ServerError, Value};

use super::error::ApiError;

/// Adds an error beside the value of the current field.
pub fn beside(ctx: &Context<'_>, error: ApiError) {
    ctx.add_error(ctx.set_error_path(server_error(ctx, error)));
}

/// Adds an error about the entity of this type and `id`, which must itself be null. The current field is `_entities`;
/// if it failed as a whole, async-graphql would return none of the entities.
pub fn beside_entity(ctx: &Context<'_>, typename: &str, id: &str, error: ApiError) {
    let error = server_error(ctx, error);
    let key = ctx.field().alias().unwrap_or_else(|| ctx.field().name());
    let places = places(ctx, typename, id)
        .into_iter()
        .map(|at| vec![PathSegment::Field(key.to_owned()), PathSegment::Index(at)]);
    let errors = &ctx.query_env.errors;
    let mut errors = errors.lock().unwrap_or_else(PoisonError::into_inner);
    // A representation that occurs twice is resolved twice.
    for path in places {
        if !errors.iter().any(|known| known.path == path) {
            errors.push(ServerError {
                path,
                ..error.clone()
            });
        }
    }
}

fn server_error(ctx: &Context<'_>, error: ApiError) -> ServerError {
    async_graphql::Error::from(error).into_server_error(ctx.item.pos)
}

/// The indices of the representations that name this entity.
fn places(ctx: &Context<'_>, typename: &str, id: &str) -> Vec<usize> {
    let arguments = ctx.field().arguments().unwrap_or_default();
    let Some((_, Value::List(asked))) = arguments
        .into_iter()
        .find(|(name, _)| name == "representations")
    else {
        return Vec::new();
    };
    let is_meant = |one: &Value| {
        let Value::Object(members) = one else {
            return false;
        };
        let is_of_type =
            matches!(members.get("__typename"), Some(Value::String(name)) if name == typename);
        is_of_type
            && match members.get("id") {
                Some(Value::String(text)) => text == id,
                Some(Value::Number(number)) => number.to_string() == id,
                _ => false,
            }
    };
    asked
        .iter()
        .enumerate()
        .filter(|(_, one)| is_meant(one))
        .map(|(at, _)| at)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use async_graphql::{
        EmptyMutation, EmptySubscription, ID, Object, Request, Schema, SimpleObject, Variables,
    };
    use serde_json::json;

    use super::*;
    use crate::graphql::ErrorCodes;

    #[derive(SimpleObject)]
    struct Customer {
        id: ID,
    }

    struct Query;

    #[Object]
    impl Query {
        async fn some(&self, ctx: &Context<'_>) -> Vec<i32> {
            beside(ctx, ApiError::unavailable("not all"));
            vec![1]
        }

        #[graphql(entity)]
        async fn customer(&self, ctx: &Context<'_>, id: ID) -> Option<Customer> {
            if id.starts_with("gone") {
                beside_entity(ctx, "Customer", &id, ApiError::unavailable("not yet"));
                return None;
            }
            Some(Customer { id })
        }
    }

    async fn answer(request: Request) -> serde_json::Value {
        let schema = Schema::build(Query, EmptyMutation, EmptySubscription)
            .enable_federation()
            .extension(ErrorCodes)
            .finish();
        serde_json::to_value(schema.execute(request).await).unwrap()
    }

    #[tokio::test]
    async fn a_field_answers_what_it_has_with_an_error_beside_it() {
        let answer = answer(Request::new("{ few: some }")).await;
        assert_eq!(answer["data"], json!({"few": [1]}));
        assert_eq!(answer["errors"][0]["path"], json!(["few"]), "{answer}");
        assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    }

    #[tokio::test]
    async fn an_entity_that_fails_is_null_with_an_error_at_each_of_its_places_and_the_others_are_there()
     {
        let query =
            "query($r: [_Any!]!) { e: _entities(representations: $r) { ... on Customer { id } } }";
        let customer = |id: serde_json::Value| json!({"__typename": "Customer", "id": id});
        let asked = json!({"r": [customer(json!("a")), customer(json!("gone")), customer(json!("b")), customer(json!("gone"))]});
        let request = Request::new(query).variables(Variables::from_json(asked));
        let answer = answer(request).await;
        assert_eq!(
            answer["data"]["e"],
            json!([{"id": "a"}, null, {"id": "b"}, null]),
            "{answer}"
        );
        let errors = answer["errors"].as_array().unwrap();
        let paths: Vec<_> = errors.iter().map(|error| error["path"].clone()).collect();
        assert_eq!(paths, [json!(["e", 1]), json!(["e", 3])]);
        assert_eq!(errors[0]["extensions"]["code"], "UNAVAILABLE");
    }
}
