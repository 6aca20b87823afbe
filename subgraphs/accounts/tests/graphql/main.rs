//! The accounts part of the GraphQL contract, from the client's side.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod audit;
#[path = "../common/mod.rs"]
mod common;
mod idempotency;

use common::Accounts;
use serde_json::{Value, json};
use tandem_authentication::{Access, Principal, Scopes};
use tandem_event_path::commands::Gate;

const CREATE: &str =
    "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) { customer {
    id revision createdAt updatedAt name { title firstName lastName } contact { primaryPhone email }
    addresses { type city } creditCards { type last4 expiration nameOnCard } } } }";

const UPDATE: &str = "mutation($id: ID!, $input: UpdateCustomerInput!, $expected: Int) {
    updateCustomer(id: $id, input: $input, expectedRevision: $expected) { customer {
    id revision name { firstName } contact { email } addresses { city } creditCards { last4 } } } }";

fn input(id: Option<&str>) -> Value {
    let mut input = json!({
        "name": {"firstName": "Jo", "lastName": "Doe"},
        "contact": {"primaryPhone": "201-123-4567", "email": "jo@example.com"},
        "addresses": [{"type": "SHIPPING", "address1": "1 Main Street", "city": "Anytown", "state": "NY", "postalCode": "12345"}],
        "creditCards": [{"type": "PRIMARY", "number": "1234-6789-0000-4242", "expiration": "6/19", "nameOnCard": "Jo Doe"}],
    });
    if let Some(id) = id {
        input["id"] = json!(id);
    }
    input
}

async fn create(accounts: &Accounts, id: &str) -> Value {
    accounts
        .data(CREATE, json!({"input": input(Some(id))}))
        .await["createCustomer"]["customer"]
        .take()
}

#[tokio::test]
async fn a_created_customer_is_read_back_with_its_card_masked() {
    let accounts = Accounts::start().await;
    let created = create(&accounts, "jo").await;
    assert_eq!(created["revision"], 1);
    assert_eq!(created["createdAt"], created["updatedAt"]);
    let read = accounts
        .data("{ customer(id: \"jo\") { id revision createdAt updatedAt name { title firstName lastName }
            contact { primaryPhone email } addresses { type city } creditCards { type last4 expiration nameOnCard } } }", json!({}))
        .await;
    assert_eq!(read["customer"], created);
    assert_eq!(read["customer"]["creditCards"][0]["last4"], "4242");
    assert_eq!(read["customer"]["name"]["title"], Value::Null);
    let accounts = accounts.restart().await;
    let again = accounts
        .data("{ customer(id: \"jo\") { revision } }", json!({}))
        .await;
    assert_eq!(again["customer"]["revision"], 1);
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn a_customer_that_is_not_there_is_null() {
    let accounts = Accounts::start().await;
    for id in ["nobody", "not an id", ""] {
        let read = accounts
            .data(
                "query($id: ID!) { customer(id: $id) { id } }",
                json!({"id": id}),
            )
            .await;
        assert_eq!(read, json!({"customer": null}));
    }
}

#[tokio::test]
async fn an_id_is_assigned_when_none_is_given() {
    let accounts = Accounts::start().await;
    let created = accounts.data(CREATE, json!({"input": input(None)})).await;
    let id = created["createCustomer"]["customer"]["id"]
        .as_str()
        .unwrap();
    assert!(id.parse::<u64>().is_ok(), "{id}");
}

#[tokio::test]
async fn a_number_is_taken_as_id() {
    let accounts = Accounts::start().await;
    let mut with_number = input(None);
    with_number["id"] = json!(123_456);
    let created = accounts.data(CREATE, json!({"input": with_number})).await;
    assert_eq!(created["createCustomer"]["customer"]["id"], "123456");
}

#[tokio::test]
async fn an_id_in_use_is_refused() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let refused = accounts
        .refusal(CREATE, json!({"input": input(Some("jo"))}))
        .await;
    assert_eq!(refused["code"], "ALREADY_EXISTS");
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn an_update_changes_the_given_parts_and_leaves_the_rest() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let name = json!({"name": {"firstName": "Max", "lastName": "Doe"}});
    let updated = accounts
        .data(UPDATE, json!({"id": "jo", "input": name, "expected": 1}))
        .await;
    let customer = &updated["updateCustomer"]["customer"];
    assert_eq!(customer["revision"], 2);
    assert_eq!(customer["name"]["firstName"], "Max");
    assert_eq!(customer["addresses"][0]["city"], "Anytown");
    assert_eq!(customer["creditCards"][0]["last4"], "4242");
    let told: Vec<i64> = accounts
        .pending()
        .await
        .iter()
        .map(|pending| pending.revision)
        .collect();
    assert_eq!(told, [1, 2]);
}

#[tokio::test]
async fn an_update_that_changes_nothing_makes_no_revision_and_no_event() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let mut same = input(None);
    same.as_object_mut().unwrap().remove("id");
    for given in [same, json!({})] {
        let updated = accounts
            .data(UPDATE, json!({"id": "jo", "input": given}))
            .await;
        assert_eq!(updated["updateCustomer"]["customer"]["revision"], 1);
    }
    assert_eq!(accounts.pending().await.len(), 1);
}

fn bearer(subject: &str, scopes: &str) -> Access {
    Access::Bearer(Principal {
        subject: subject.into(),
        scopes: Scopes::of_claim(scopes),
        expires_at: u64::MAX,
    })
}

#[tokio::test]
async fn who_may_change_and_not_read_is_shown_what_they_gave_and_nothing_else() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let update = async |access: &Access, given: &Value, selection: &str| {
        let fragment = match selection.contains("...F") {
            true => "fragment F on Customer { contact { email } }",
            false => "",
        };
        let query = format!(
            "mutation($input: UpdateCustomerInput!) {{
            updateCustomer(id: \"jo\", input: $input) {{ customer {{ {selection} }} }} }} {fragment}"
        );
        let answer = accounts
            .graphql_by(access, &query, json!({"input": given}))
            .await;
        answer["errors"][0]["extensions"]["code"].clone()
    };
    let nothing = json!({});
    let same_name = json!({"name": {"firstName": "Jo", "lastName": "Doe"}});
    let new_name = json!({"name": {"firstName": "Max", "lastName": "Doe"}});
    let writer = bearer("writer", "customers:write");
    let hidden = [
        (&nothing, "name { firstName }"),
        (&nothing, "id contact { email }"),
        (&nothing, "addresses { city }"),
        (&nothing, "creditCards { last4 }"),
        (&nothing, "changes { nodes { changedBy } }"),
        (&nothing, "...F"),
        (
            &nothing,
            "... on Customer { ... { mail: contact { email } } }",
        ),
        (&same_name, "name { firstName } contact { email }"),
        (&new_name, "name { firstName } ...F"),
    ];
    for (given, selection) in hidden {
        assert_eq!(
            update(&writer, given, selection).await,
            "FORBIDDEN",
            "{given} {selection}"
        );
        for access in [
            bearer("writer", "customers:write customers:read"),
            bearer("jo", "self"),
            bearer("jo", "customers:write self"),
        ] {
            let refused = update(&access, &nothing, selection).await;
            assert_eq!(refused, Value::Null, "{selection}");
        }
    }
    assert_eq!(accounts.pending().await.len(), 1, "nothing was changed");
}

#[tokio::test]
async fn a_change_by_who_may_not_read_is_answered_with_what_was_given() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let writer = bearer("writer", "customers:write");
    let query = "mutation($input: UpdateCustomerInput!) { updateCustomer(id: \"jo\", input: $input) {
        customer { __typename id revision createdAt updatedAt name { firstName } addresses { city } } } }";
    let given = json!({"name": {"firstName": "Max", "lastName": "Doe"}, "addresses": []});
    let answer = accounts
        .graphql_by(&writer, query, json!({"input": given}))
        .await;
    let shown = &answer["data"]["updateCustomer"]["customer"];
    assert_eq!(shown["revision"], 2, "{answer:#}");
    assert_eq!(shown["name"]["firstName"], "Max");
    assert_eq!(shown["addresses"], json!([]));
    // The creator of a customer gave all of its data, but does not see what others do with the customer later.
    let created = accounts
        .graphql_by(&writer, CREATE, json!({"input": input(Some("max"))}))
        .await;
    assert!(created.get("errors").is_none(), "{created:#}");
    let trail = "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) {
        customer { id changes { nodes { changedBy } } } } }";
    let refused = accounts
        .graphql_by(&writer, trail, json!({"input": input(Some("kim"))}))
        .await;
    assert_eq!(refused["errors"][0]["extensions"]["code"], "FORBIDDEN");
    let read = accounts
        .data("{ customer(id: \"kim\") { id } }", json!({}))
        .await;
    assert_eq!(read["customer"], Value::Null);
}

#[tokio::test]
async fn a_stale_revision_and_an_unknown_customer_are_refused() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let name = json!({"name": {"firstName": "Max", "lastName": "Doe"}});
    let stale = accounts
        .refusal(UPDATE, json!({"id": "jo", "input": name, "expected": 7}))
        .await;
    assert_eq!(stale["code"], "REVISION_CONFLICT");
    assert_eq!(stale["actualRevision"], 1);
    let unknown = accounts
        .refusal(UPDATE, json!({"id": "max", "input": name}))
        .await;
    assert_eq!(unknown["code"], "NOT_FOUND");
}

#[tokio::test]
async fn a_revision_that_no_customer_can_have_is_no_conflict_but_bad_input() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    let name = json!({"name": {"firstName": "Max", "lastName": "Doe"}});
    for expected in [0, -5] {
        let refused = accounts
            .refusal(
                UPDATE,
                json!({"id": "jo", "input": name, "expected": expected}),
            )
            .await;
        assert_eq!(refused["code"], "BAD_USER_INPUT", "{refused}");
        assert_eq!(refused["field"], "expectedRevision", "{refused}");
    }
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn bad_input_names_its_field_and_stores_nothing() {
    let accounts = Accounts::start().await;
    type Spoil = fn(&mut Value);
    let cases: [(&str, Spoil); 6] = [
        ("input.addresses[0].postalCode", |i| {
            i["addresses"][0]["postalCode"] = json!(" ");
        }),
        ("input.contact.email", |i| {
            i["contact"]["email"] = json!("jo")
        }),
        ("input.creditCards[0].number", |i| {
            i["creditCards"][0]["number"] = json!("1");
        }),
        ("input.id", |i| i["id"] = json!("not an id")),
        ("input.idempotencyKey", |i| i["idempotencyKey"] = json!("")),
        ("input.addresses[0].type", |i| {
            i["addresses"][0]["type"] = json!("HOME");
        }),
    ];
    for (field, spoil) in cases {
        let mut bad = input(Some("jo"));
        spoil(&mut bad);
        let refused = accounts.refusal(CREATE, json!({"input": bad})).await;
        assert_eq!(refused["code"], "BAD_USER_INPUT", "{field}");
        assert_eq!(refused["field"], field);
    }
    let read = accounts
        .data("{ customer(id: \"jo\") { id } }", json!({}))
        .await;
    assert_eq!(read["customer"], Value::Null);
    assert!(accounts.pending().await.is_empty());
}

#[tokio::test]
async fn a_customer_too_large_to_be_published_is_refused_and_not_stored() {
    let accounts = Accounts::start().await;
    let address = |text: &str| json!({"type": "SHIPPING", "description": text, "address1": "1", "city": "A", "state": "NY", "postalCode": "1"});
    // Each address keeps its rules, and so does the list. Together they have too many bytes for one message.
    let mut large = input(Some("large"));
    large["addresses"] = json!(vec![address(&"𝄞".repeat(1_000)); 100]);
    large["name"]["lastName"] = json!("𝄞".repeat(200));
    large["creditCards"] = json!([]);
    let mut body = large.clone();
    for address in body["addresses"].as_array_mut().unwrap() {
        for field in ["address1", "address2", "city", "state", "postalCode"] {
            address[field] = json!("𝄞".repeat(200));
        }
    }
    let refused = accounts.graphql(CREATE, json!({"input": body})).await;
    let refused = &refused["errors"][0];
    assert_eq!(refused["extensions"]["code"], "BAD_USER_INPUT");
    assert_eq!(refused["extensions"]["field"], "input");
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("expected at most"), "{message}");
    assert!(accounts.pending().await.is_empty());

    // Half of it is accepted. A later update that is too large leaves it unchanged.
    accounts.data(CREATE, json!({"input": large})).await;
    let update = json!({"id": "large", "input": {"addresses": body["addresses"]}});
    let refused = accounts.refusal(UPDATE, update).await;
    assert_eq!(refused["code"], "BAD_USER_INPUT");
    assert_eq!(accounts.pending().await.len(), 1);
}

#[tokio::test]
async fn pages_follow_one_another_in_order_of_id() {
    let accounts = Accounts::start().await;
    for id in ["c", "a", "e", "b", "d"] {
        create(&accounts, id).await;
    }
    let query = "query($after: String) { customers(first: 2, after: $after) {
        nodes { id } edges { cursor node { id } } pageInfo { hasNextPage hasPreviousPage endCursor } } }";
    let mut seen = Vec::new();
    let mut after = Value::Null;
    loop {
        let page = accounts.data(query, json!({"after": after})).await["customers"].take();
        for node in page["nodes"].as_array().unwrap() {
            seen.push(node["id"].as_str().unwrap().to_owned());
        }
        if page["pageInfo"]["hasNextPage"] == json!(false) {
            break;
        }
        after = page["pageInfo"]["endCursor"].clone();
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e"]);
    for first in [0, 101, -1] {
        let refused = accounts
            .refusal(
                "query($first: Int!) { customers(first: $first) { nodes { id } } }",
                json!({"first": first}),
            )
            .await;
        assert_eq!(refused["field"], "first");
    }
}

#[tokio::test]
async fn a_page_behind_many_who_were_erased_takes_few_reads_and_leaves_nobody_out() {
    let accounts = Accounts::start().await;
    let erase = "mutation($id: ID!) { eraseCustomer(id: $id) { id } }";
    for number in 0..64 {
        create(&accounts, &format!("c{number:02}")).await;
        if number % 63 != 0 {
            let id = format!("c{number:02}");
            accounts.data(erase, json!({"id": id})).await;
        }
    }
    create(&accounts, "c64").await;
    create(&accounts, "c65").await;
    accounts.reads();
    let page = "query($after: String) { customers(first: 2, after: $after) { nodes { id } pageInfo { hasNextPage endCursor } } }";
    let first = &accounts.data(page, json!({})).await["customers"];
    assert_eq!(first["nodes"], json!([{"id": "c00"}, {"id": "c63"}]));
    assert_eq!(first["pageInfo"]["hasNextPage"], true);
    let reads = accounts.reads();
    assert!(reads <= 7, "{reads}");
    let after = json!({"after": first["pageInfo"]["endCursor"]});
    let last = &accounts.data(page, after).await["customers"];
    assert_eq!(last["nodes"], json!([{"id": "c64"}, {"id": "c65"}]));
    assert_eq!(last["pageInfo"]["hasNextPage"], false);
}

#[tokio::test]
async fn a_hundred_customers_are_resolved_in_one_batched_read() {
    let accounts = Accounts::start().await;
    let ids: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    for id in &ids {
        create(&accounts, id).await;
    }
    let mut representations: Vec<Value> = ids
        .iter()
        .map(|id| json!({"__typename": "Customer", "id": id}))
        .collect();
    representations.push(json!({"__typename": "Customer", "id": "nobody"}));
    accounts.reads();
    let found = accounts
        .data(
            "query($of: [_Any!]!) { _entities(representations: $of) { ... on Customer { id revision creditCards { last4 } } } }",
            json!({"of": representations}),
        )
        .await;
    assert_eq!(accounts.reads(), 1);
    let entities = found["_entities"].as_array().unwrap();
    assert_eq!(entities.len(), 101);
    assert_eq!(entities[42]["id"], "c42");
    assert_eq!(entities[100], Value::Null);
}

#[tokio::test]
async fn a_store_that_is_being_filled_takes_no_commands_yet() {
    let gate = Gate::closed();
    let accounts = Accounts::start_behind(gate.clone()).await;
    let refused = accounts
        .refusal(CREATE, json!({"input": input(Some("jo"))}))
        .await;
    assert_eq!(refused["code"], "UNAVAILABLE");
    gate.let_through();
    create(&accounts, "jo").await;
}

#[tokio::test]
async fn no_stored_byte_holds_the_card_number() {
    let accounts = Accounts::start().await;
    create(&accounts, "jo").await;
    for pending in accounts.pending().await {
        let told = format!("{pending:?}");
        assert!(!told.contains("12346789") && !told.contains("1234-6789"));
    }
}

#[tokio::test]
async fn a_router_is_told_the_schema_with_all_that_it_declares() {
    let accounts = Accounts::start().await;
    let query = "{ again: _service { text: sdl } _service { sdl } customers(first: 1) { edges { cursor } } }";
    let data = accounts.data(query, json!({})).await;
    let published = tandem_accounts::sdl();
    assert!(published.contains("type Customer @key(fields: \"id\") @authenticated {"));
    assert_eq!(data["_service"]["sdl"], published);
    assert_eq!(data["again"]["text"], published);
}
