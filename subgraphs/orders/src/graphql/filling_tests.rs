#![allow(clippy::unwrap_used)]
//! Reads while the stores are being filled from the log.

use async_graphql::{Request, Variables};
use serde_json::{Value, json};
use tandem_authentication::Access;
use tandem_event_path::commands::Gate;

use super::schema;
use crate::test_support::World;

async fn answer(world: &World, query: &str, variables: Value) -> Value {
    let request = Request::new(query)
        .variables(Variables::from_json(variables))
        .data(Access::Open)
        .data(world.backing.loaders());
    let schema = schema(world.backing.clone());
    serde_json::to_value(schema.execute(request).await).unwrap()
}

/// Asserts that the answer has one error, at this path, which says that the store is being filled.
fn assert_filling(answer: &Value, path: &Value) {
    assert_eq!(
        answer["errors"].as_array().map(Vec::len),
        Some(1),
        "{answer}"
    );
    let error = &answer["errors"][0];
    assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
    assert_eq!(&error["path"], path, "{answer}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("filled from the log"), "{message}");
}

#[tokio::test]
async fn what_is_not_in_a_store_that_is_being_filled_is_not_said_to_be_missing() {
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let gate = Gate::closed();
    let mut world = World::new().await;
    world.customer("1").await;
    let order = world.place("1", "2").await;
    world.stand_behind(gate.clone());
    let query = "query($id: ID!) { order(id: $id) { id } }";
    let missing = answer(&world, query, json!({"id": unknown})).await;
    assert_eq!(missing["data"], json!({"order": null}));
    assert_filling(&missing, &json!(["order"]));
    let found = answer(&world, query, json!({"id": order.id})).await;
    assert_eq!(found, json!({"data": {"order": {"id": order.id}}}));
    for query in [
        "{ orderingCustomer(id: \"nobody\") { id } }",
        "{ orderingCustomer(id: \"nobody\", minRevision: 1) { id } }",
    ] {
        let missing = answer(&world, query, json!({})).await;
        assert_eq!(missing["data"], json!({"orderingCustomer": null}));
        assert_filling(&missing, &json!(["orderingCustomer"]));
    }
    gate.let_through();
    let missing = answer(&world, query, json!({"id": unknown})).await;
    assert_eq!(missing, json!({"data": {"order": null}}));
}

#[tokio::test]
async fn a_list_of_a_store_that_is_being_filled_says_so_beside_what_it_has() {
    let gate = Gate::closed();
    let mut world = World::new().await;
    world.customer("1").await;
    let order = world.place("1", "2").await;
    world.stand_behind(gate.clone());
    let node = json!({"nodes": [{"id": order.id}]});
    let all = answer(&world, "{ orders { nodes { id } } }", json!({})).await;
    assert_eq!(all["data"]["orders"], node);
    assert_filling(&all, &json!(["orders"]));
    let query = "{ orderingCustomer(id: \"1\") { orders { nodes { id } } } }";
    let of_one = answer(&world, query, json!({})).await;
    assert_eq!(of_one["data"]["orderingCustomer"]["orders"], node);
    assert_filling(&of_one, &json!(["orderingCustomer", "orders"]));
    let query = "query($id: ID!) { order(id: $id) { changes { nodes { revision } } } }";
    let trail = answer(&world, query, json!({"id": order.id})).await;
    assert_eq!(trail["data"]["order"]["changes"]["nodes"], json!([]));
    assert_filling(&trail, &json!(["order", "changes"]));
    gate.let_through();
    let all = answer(&world, "{ orders { nodes { id } } }", json!({})).await;
    assert_eq!(all, json!({"data": {"orders": node}}));
}

#[tokio::test]
async fn an_entity_that_is_not_in_a_store_that_is_being_filled_is_null_with_an_error_at_its_place()
{
    let unknown = "01890a5d-ac96-774b-bcce-b302099a8057";
    let mut world = World::new().await;
    world.customer("1").await;
    let order = world.place("1", "2").await;
    world.stand_behind(Gate::closed());
    let query = "query($of: [_Any!]!) { _entities(representations: $of) { ... on Order { id } } }";
    let of = [order.id.as_str(), unknown].map(|id| json!({"__typename": "Order", "id": id}));
    let answer = answer(&world, query, json!({"of": of})).await;
    assert_eq!(answer["data"]["_entities"], json!([{"id": order.id}, null]));
    assert_filling(&answer, &json!(["_entities", 1]));
}
