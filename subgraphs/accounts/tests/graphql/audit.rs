//! The audit trail of a customer.

use serde_json::json;

use super::{UPDATE, common::Accounts, create};

#[tokio::test]
async fn the_audit_trail_tells_every_change_oldest_first() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    for name in ["Max", "Kim"] {
        let name = json!({"name": {"firstName": name, "lastName": "Doe"}});
        accounts
            .data(UPDATE, json!({"id": "jo", "input": name}))
            .await;
    }
    accounts.project_audit().await;
    let query = "query($after: String) { customer(id: \"jo\") { changes(first: 2, after: $after) {
        nodes { eventId revision type changedAt changedBy changedFields } pageInfo { hasNextPage endCursor } } } }";
    let page = accounts.data(query, json!({})).await["customer"]["changes"].take();
    let pending = accounts.pending().await;
    assert_eq!(page["nodes"][0]["eventId"], json!(pending[0].event.id));
    assert_eq!(page["nodes"][0]["type"], "CREATED");
    assert_eq!(page["nodes"][0]["changedBy"], "anonymous");
    assert_eq!(page["nodes"][1]["type"], "UPDATED");
    assert_eq!(page["nodes"][1]["changedFields"], json!(["name"]));
    assert_eq!(page["pageInfo"]["hasNextPage"], true);
    let after = page["pageInfo"]["endCursor"].clone();
    let rest = accounts.data(query, json!({"after": after})).await["customer"]["changes"].take();
    assert_eq!(rest["nodes"].as_array().map(Vec::len), Some(1));
    assert_eq!(rest["nodes"][0]["revision"], 3);
    assert_eq!(rest["pageInfo"]["hasNextPage"], false);
}

#[tokio::test]
async fn a_client_sees_its_own_change_in_the_audit_trail() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let query = "{ customer(id: \"jo\") { changes { nodes { revision } } } }";
    // The projection runs after the reader has begun to wait.
    let (read, ()) = tokio::join!(accounts.data(query, json!({})), async {
        tokio::task::yield_now().await;
        accounts.project_audit().await;
    });
    assert_eq!(
        read["customer"]["changes"]["nodes"],
        json!([{"revision": 1}])
    );
}

#[tokio::test]
async fn without_kafka_the_audit_trail_answers_what_there_is() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let read = accounts
        .data(
            "{ customer(id: \"jo\") { id changes { nodes { revision } } } }",
            json!({}),
        )
        .await;
    assert_eq!(read["customer"]["changes"]["nodes"], json!([]));
}
