#![allow(clippy::unwrap_used, missing_docs)]
//! Reads while the store is being filled from the log.

mod common;

use axum::http::StatusCode;
use common::{Accounts, SAMPLE};
use serde_json::{Value, json};
use tandem_event_path::commands::Gate;

/// Checks that the answer has one error, at this path, which says that the store is being filled. Returns the data of
/// the answer.
fn of_filling(answer: &Value, path: &Value) -> Value {
    assert_eq!(
        answer["errors"].as_array().map(Vec::len),
        Some(1),
        "{answer:#}"
    );
    let error = &answer["errors"][0];
    assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer:#}");
    assert_eq!(&error["path"], path, "{answer:#}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("filled from the log"), "{message}");
    answer["data"].clone()
}

#[tokio::test]
async fn while_a_store_is_being_filled_nobody_is_said_to_be_missing_and_no_list_to_be_whole() {
    let filled = Accounts::start().await;
    let created = filled
        .send("POST", "/accounts/customer/create", SAMPLE)
        .await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let gate = Gate::closed();
    let accounts = filled.restart_behind(gate.clone()).await;
    let query = "query($id: ID!) { customer(id: $id) { id } }";
    let missing = accounts.graphql(query, json!({"id": "bo"})).await;
    assert_eq!(
        of_filling(&missing, &json!(["customer"])),
        json!({"customer": null})
    );
    let found = accounts.data(query, json!({"id": "123456"})).await;
    assert_eq!(found, json!({"customer": {"id": "123456"}}));
    let list = accounts
        .graphql("{ customers { nodes { id } } }", json!({}))
        .await;
    let shown = json!({"customers": {"nodes": [{"id": "123456"}]}});
    assert_eq!(of_filling(&list, &json!(["customers"])), shown);
    let trail = "{ customer(id: \"123456\") { changes { nodes { revision } } } }";
    let trail = accounts.graphql(trail, json!({})).await;
    let shown = json!({"customer": {"changes": {"nodes": []}}});
    assert_eq!(of_filling(&trail, &json!(["customer", "changes"])), shown);
    let entities =
        "query($of: [_Any!]!) { _entities(representations: $of) { ... on Customer { id } } }";
    let of = ["bo", "123456"].map(|id| json!({"__typename": "Customer", "id": id}));
    let entities = accounts.graphql(entities, json!({"of": of})).await;
    let shown = json!({"_entities": [null, {"id": "123456"}]});
    assert_eq!(of_filling(&entities, &json!(["_entities", 0])), shown);
    gate.let_through();
    let missing = accounts.data(query, json!({"id": "bo"})).await;
    assert_eq!(missing, json!({"customer": null}));
}
