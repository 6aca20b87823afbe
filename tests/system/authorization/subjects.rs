//! What is kept separate for each subject: responses under an idempotency key, and responses to the same operation at
//! the same time.

use serde_json::{Value, json};

use super::{OTHER, OWN, World, customer, order};
use crate::support::Client;

const CREATE: &str =
    "mutation($input: CreateCustomerInput!) { createCustomer(input: $input) { customer { id } } }";
const PLACE: &str = "mutation($input: PlaceOrderInput!) { placeOrder(input: $input) { order { id customer { id } } } }";
/// The key that all callers use.
const KEY: &str = "the-same-key";

#[test]
fn an_idempotency_key_of_one_subject_answers_no_other() {
    let world = World::start();
    let with_key = |mut input: Value| {
        input["idempotencyKey"] = KEY.into();
        json!({"input": input})
    };
    let made = |client: &Client, url: &str, customer: &Value| {
        client.data(url, CREATE, with_key(customer.clone()))["createCustomer"]["customer"].clone()
    };
    let mut nameless = customer(OWN);
    nameless["id"] = Value::Null;
    let bearer =
        |subject: &str, scopes: &str| Client::with_token(world.issuer.token(subject, scopes));
    let writers = ["writer-1", "writer-2"].map(|subject| bearer(subject, "customers:write"));
    // The input is the same, and still neither caller gets the response of the other.
    let first = writers
        .each_ref()
        .map(|writer| made(writer, &world.gateway(), &nameless));
    assert_ne!(first[0]["id"], first[1]["id"]);
    // Each caller gets its own response again, through either port.
    for url in [world.gateway(), world.tandem.accounts_url("/graphql")] {
        let again = writers
            .each_ref()
            .map(|writer| made(writer, &url, &nameless));
        assert_eq!(again, first, "{url}");
    }

    let placed = |client: &Client, url: &str, customer: &str| {
        client.data(url, PLACE, with_key(order(customer)))["placeOrder"]["order"].clone()
    };
    // Two customers who order for themselves, and two clerks who order for the first of them.
    let placing = [
        (bearer(OWN, "self"), OWN),
        (bearer(OTHER, "self"), OTHER),
        (bearer("clerk-1", "orders:write"), OWN),
        (bearer("clerk-2", "orders:write"), OWN),
    ];
    let first = placing
        .each_ref()
        .map(|(client, customer)| placed(client, &world.gateway(), customer));
    for (place, (order, (_, customer))) in first.iter().zip(&placing).enumerate() {
        assert_eq!(order["customer"]["id"], *customer);
        for other in &first[..place] {
            assert_ne!(order["id"], other["id"], "{first:?}");
        }
    }
    for url in [world.gateway(), world.tandem.orders_url("/graphql")] {
        let again = placing
            .each_ref()
            .map(|(client, customer)| placed(client, &url, customer));
        assert_eq!(again, first, "{url}");
    }
}

#[test]
fn the_same_query_of_two_customers_at_the_same_time_shows_each_their_own() {
    const TIMES: usize = 100;
    let world = World::start();
    let own_orders = "{ customers { nodes { id orders { nodes { customer { id } } } } } orders { nodes { customer { id } } } }";
    let url = world.gateway();
    std::thread::scope(|scope| {
        for customer in [OWN, OTHER] {
            let client = Client::with_token(world.issuer.token(customer, "self"));
            let url = &url;
            scope.spawn(move || {
                let theirs = json!({"nodes": [{"customer": {"id": customer}}]});
                let expected = json!({
                    "customers": {"nodes": [{"id": customer, "orders": theirs}]}, "orders": theirs,
                });
                for _ in 0..TIMES {
                    let shown = client.data(url, own_orders, json!({}));
                    assert_eq!(shown, expected);
                }
            });
        }
    });
}
