//! Requests that are repeated with their idempotency key.

use serde_json::{Value, json};

use super::{CREATE, UPDATE, common::Accounts, create, input};

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again_also_after_a_restart() {
    let accounts = Accounts::start().await;
    let mut keyed = input(None);
    keyed["idempotencyKey"] = json!("key-1");
    let first = accounts.data(CREATE, json!({"input": keyed})).await;
    let second = accounts.data(CREATE, json!({"input": keyed})).await;
    assert_eq!(first, second);
    let accounts = accounts.restart().await;
    let third = accounts.data(CREATE, json!({"input": keyed})).await;
    assert_eq!(first, third);
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn a_request_is_not_carried_out_again_when_what_it_made_is_erased() {
    let accounts = Accounts::start().await;
    let mut keyed = input(None);
    keyed["idempotencyKey"] = json!("key-1");
    let created = accounts.data(CREATE, json!({"input": keyed})).await;
    let id = &created["createCustomer"]["customer"]["id"];
    let name = json!({"firstName": "Jo", "lastName": "Smith"});
    let update = json!({"id": id, "input": {"name": name, "idempotencyKey": "key-2"}});
    accounts.data(UPDATE, update.clone()).await;
    let erase = "mutation($id: ID!) { eraseCustomer(id: $id) { id } }";
    accounts.data(erase, json!({"id": id})).await;
    let stored = accounts.pending().await.len();
    for (operation, variables) in [(CREATE, json!({"input": keyed})), (UPDATE, update)] {
        let refused = accounts.refusal(operation, variables).await;
        assert_eq!(refused["code"], "ALREADY_EXISTS");
        assert_eq!(refused["field"], "input.idempotencyKey");
    }
    assert_eq!(accounts.pending().await.len(), stored);
    let all = accounts.data("{ customers { nodes { id } } }", json!({}));
    assert_eq!(all.await["customers"]["nodes"], json!([]));
}

#[tokio::test]
async fn a_key_belongs_to_one_operation_on_one_customer() {
    let accounts = Accounts::start().await;
    for id in ["one", "two"] {
        create(&accounts, id).await;
    }
    let update = |id: &str, last: &str| {
        let name = json!({"firstName": "Jo", "lastName": last});
        json!({"id": id, "input": {"name": name, "idempotencyKey": "key-1"}})
    };
    let first = accounts.data(UPDATE, update("one", "First")).await;
    assert_eq!(first["updateCustomer"]["customer"]["revision"], 2);
    // The same key for another customer is a different key.
    let other = accounts.data(UPDATE, update("two", "Other")).await;
    let other = &other["updateCustomer"]["customer"];
    assert_eq!(
        (&other["id"], &other["revision"]),
        (&json!("two"), &json!(2))
    );
    // The same key for another operation is a different key, too.
    let mut keyed = input(Some("three"));
    keyed["idempotencyKey"] = json!("key-1");
    let created = accounts.data(CREATE, json!({"input": keyed})).await;
    assert_eq!(created["createCustomer"]["customer"]["id"], "three");
    // Each repeated request gets its own first answer.
    assert_eq!(accounts.data(UPDATE, update("one", "First")).await, first);
    assert_eq!(
        accounts.data(CREATE, json!({"input": keyed})).await,
        created
    );
}

#[tokio::test]
async fn one_key_with_another_input_is_refused_and_changes_nothing() {
    let accounts = Accounts::start().await;
    let mut keyed = input(Some("jo"));
    keyed["idempotencyKey"] = json!("key-1");
    let created = accounts.data(CREATE, json!({"input": keyed})).await;
    let mut others = Vec::new();
    for (field, value) in [
        ("id", json!("joe")),
        ("name", json!({"firstName": "Joe", "lastName": "Doe"})),
        ("addresses", json!([])),
    ] {
        let mut other = keyed.clone();
        other[field] = value;
        others.push((CREATE, json!({"input": other})));
    }
    let update = |last: &str| {
        let name = json!({"firstName": "Jo", "lastName": last});
        json!({"id": "jo", "input": {"name": name, "idempotencyKey": "key-2"}})
    };
    let updated = accounts.data(UPDATE, update("First")).await;
    others.push((UPDATE, update("Second")));
    let pending = accounts.pending().await.len();
    for (operation, variables) in others {
        let refused = accounts.refusal(operation, variables).await;
        assert_eq!(refused["code"], "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(refused["field"], "input.idempotencyKey");
    }
    assert_eq!(accounts.pending().await.len(), pending);
    assert_eq!(accounts.data(UPDATE, update("First")).await, updated);
    // A field that is null counts as not given.
    keyed["name"]["suffix"] = Value::Null;
    assert_eq!(
        accounts.data(CREATE, json!({"input": keyed})).await,
        created
    );
}

#[tokio::test]
async fn racing_requests_with_one_key_make_one_customer() {
    let accounts = Accounts::start().await;
    let mut keyed = input(None);
    keyed["idempotencyKey"] = json!("key-1");
    let requests = (0..8).map(|_| accounts.data(CREATE, json!({"input": keyed})));
    let answers = futures::future::join_all(requests).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]));
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn the_answer_to_a_request_that_changed_nothing_is_kept_too() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let update = async |input: Value| {
        let answer = accounts
            .data(UPDATE, json!({"id": "jo", "input": input}))
            .await["updateCustomer"]["customer"]
            .take();
        (
            answer["revision"].clone(),
            answer["contact"]["email"].clone(),
        )
    };
    let contact =
        |email: &str| json!({"contact": {"primaryPhone": "201-123-4567", "email": email}});
    let mut nothing = contact("jo@example.com");
    nothing["idempotencyKey"] = json!("key-1");
    let first = update(nothing.clone()).await;
    assert_eq!(first, (json!(1), json!("jo@example.com")));
    let other = update(contact("new@example.com")).await;
    assert_eq!(other.0, json!(2));
    // Carried out again, the request would undo the other change.
    assert_eq!(update(nothing).await, first);
    let read = accounts
        .data("{ customer(id: \"jo\") { contact { email } } }", json!({}))
        .await;
    assert_eq!(read["customer"]["contact"]["email"], "new@example.com");
    assert_eq!(accounts.pending().await.len(), 2);
}
