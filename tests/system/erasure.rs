//! Erasing a customer: afterwards a byte search finds nothing of the person in any file, document or message, also
//! after a rebuild.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client,
    graph::{CREATE, PLACE, UPDATE, order_input},
    poll,
    site::{Site, traces},
};

const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) {
    name { firstName lastName } contact { primaryPhone secondaryPhone email }
    addresses { description address1 address2 city } creditCards { nameOnCard description } } }";
const ORDERING: &str =
    "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } addresses { address1 } } }";
const ORDER: &str = "query($id: ID!) { order(id: $id) {
    status total cancellationReason shipTo { address1 } customer { id } } }";
const CANCEL: &str = "mutation($id: ID!, $reason: String) {
    cancelOrder(id: $id, reason: $reason) { order { status cancellationReason } } }";
const ERASE: &str = "mutation($id: ID!) { eraseCustomer(id: $id) { id erasedAt } }";

/// Texts that do not occur by chance.
const SECRETS: [&str; 11] = [
    "Qzhavelmor",
    "Wexborundy",
    "+99 735 180 264 917",
    "+99 735 180 264 918",
    "qz.havel-4417@wexb.example",
    "Pliskorvane 71",
    "Backdoor Trunzel",
    "Yorvenstadtl",
    "Chezmoi-Krundo",
    "Qz H Wexborundy-Card",
    "Unwanted because Zalmondrik moved",
];
const REASON: usize = 10;

fn person(id: &str) -> Value {
    json!({
        "id": id,
        "name": {"firstName": SECRETS[0], "lastName": SECRETS[1]},
        "contact": {"primaryPhone": SECRETS[2], "secondaryPhone": SECRETS[3], "email": SECRETS[4]},
        "addresses": [{"type": "SHIPPING", "description": SECRETS[8], "address1": SECRETS[5], "address2": SECRETS[6],
            "city": SECRETS[7], "state": "NY", "postalCode": "1"}],
        "creditCards": [{"type": "PRIMARY", "number": "4111111111111111", "expiration": "12/29", "nameOnCard": SECRETS[9]}],
        "idempotencyKey": "first",
    })
}

#[test]
fn nothing_of_an_erased_customer_is_found_in_any_file_or_message() {
    erasing_leaves_nothing(&Site::embedded());
}

#[test]
fn nothing_of_an_erased_customer_is_found_in_any_document_or_message() {
    require!(mongod, kafka);
    erasing_leaves_nothing(&Site::on_real_servers());
}

fn erasing_leaves_nothing(site: &Site) {
    let tandem = &site.tandem;
    let traces = || traces(&site.everything(), &SECRETS);
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    let data = |query: &str, variables: Value| client.data(&gateway, query, variables);
    let code = |query: &str, variables: Value| {
        client.graphql(&gateway, query, variables)["errors"][0]["extensions"]["code"].clone()
    };

    tandem.customer(&client, "other");
    let others = tandem.order(&client, "other");
    data(CREATE, json!({"input": person("gone")}));
    tandem.replicated(&client, "gone", 1);
    let mut input = order_input("gone");
    input["idempotencyKey"] = json!("order");
    let placed = data(PLACE, json!({"input": input}));
    let id = placed["placeOrder"]["order"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    data(CANCEL, json!({"id": id, "reason": SECRETS[REASON]}));
    let contact = json!({"contact": {"primaryPhone": SECRETS[3], "secondaryPhone": SECRETS[2], "email": SECRETS[4]}});
    data(UPDATE, json!({"id": "gone", "input": contact}));
    tandem.replicated(&client, "gone", 2);

    // Before the erasure, all of it can be read, so that the search proves something.
    let before = [
        data(CUSTOMER, json!({"id": "gone"})).to_string(),
        data(ORDERING, json!({"id": "gone"})).to_string(),
        data(ORDER, json!({"id": id})).to_string(),
    ]
    .concat();
    for secret in SECRETS {
        assert!(before.contains(secret), "{secret} is not in {before}");
    }
    let order_before = data(ORDER, json!({"id": id}));
    assert_eq!(order_before["order"]["shipTo"]["address1"], SECRETS[5]);

    // The search also finds text in MongoDB, which stores states in plain, and within base64.
    site.plant(&STANDARD.encode(format!("..{}..", SECRETS[5])));
    let found = traces();
    site.weed();
    let in_base64: Vec<_> = found.iter().filter(|it| it.contains("base64")).collect();
    assert_eq!(in_base64.len(), 1, "{found:#?}");
    for secret in SECRETS {
        let readable = found
            .iter()
            .any(|it| it.starts_with(&format!("{secret} in ")) && !it.contains("base64"));
        assert_eq!(readable, site.has_documents(), "{secret}: {found:#?}");
    }

    let erased = data(ERASE, json!({"id": "gone"}));
    assert_eq!(erased["eraseCustomer"]["id"], "gone");
    assert_eq!(data(ERASE, json!({"id": "gone"})), erased);
    assert_eq!(code(ERASE, json!({"id": "nobody"})), "NOT_FOUND");

    let is_gone = || {
        let order = data(ORDER, json!({"id": id}));
        assert_eq!(order["order"]["status"], "CANCELLED");
        assert_eq!(order["order"]["total"], "25.00");
        data(ORDERING, json!({"id": "gone"}))["orderingCustomer"].is_null()
            && order["order"]["shipTo"].is_null()
            && order["order"]["cancellationReason"].is_null()
    };
    poll("orders without the person", || is_gone().then_some(()));
    let check = || {
        assert!(data(CUSTOMER, json!({"id": "gone"}))["customer"].is_null());
        assert!(is_gone());
        assert_eq!(
            code(CREATE, json!({"input": person("gone")})),
            "ALREADY_EXISTS"
        );
        // The same request is not executed again. It is answered without the person's data.
        let again = data(PLACE, json!({"input": input}));
        assert_eq!(again["placeOrder"]["order"]["id"], json!(id));
        assert_eq!(
            code(UPDATE, json!({"id": "gone", "input": contact})),
            "NOT_FOUND"
        );
        assert_eq!(
            code(PLACE, json!({"input": order_input("gone")})),
            "CUSTOMER_UNKNOWN"
        );
        // No other customer is affected.
        let other = data(CUSTOMER, json!({"id": "other"}));
        assert_eq!(other["customer"]["contact"]["email"], "ada@example.org");
        let ordering = data(ORDERING, json!({"id": "other"}));
        assert_eq!(
            ordering["orderingCustomer"]["addresses"][1]["address1"],
            "1 Ockham Park"
        );
        let order = data(ORDER, json!({"id": others}));
        assert_eq!(order["order"]["shipTo"]["address1"], "1 Ockham Park");
        // The topic of keys may hold the old key until it is compacted, but nobody opens anything with it.
        let audit = tandem.operated(&["audit", "customer", "gone"]);
        assert!(
            audit.contains("ERASED") && audit.contains("UPDATED"),
            "{audit}"
        );
        for secret in SECRETS {
            assert!(!audit.contains(secret), "{audit}");
        }
        let found = traces();
        assert!(found.is_empty(), "{found:#?}");
    };
    check();
    tandem.operated(&["rebuild", "accounts"]);
    tandem.operated(&["rebuild", "orders"]);
    check();
}
