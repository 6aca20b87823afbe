//! GraphiQL in a headless Chromium against the real system: a query, and a subscription that shows an update.

use serde_json::json;

use super::support::{
    Client, Tandem,
    graph::{PLACE, order_input},
};

#[path = "../gateway/browser.rs"]
mod browser;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_queries_and_live_updates_in_graphiql() {
    let tandem = tokio::task::block_in_place(|| {
        let tandem = Tandem::start();
        tandem.customer(&Client::new(), "seen");
        tandem
    });
    let http = reqwest::Client::new();
    let order = json!({"query": PLACE, "variables": {"input": order_input("seen")}}).to_string();
    let check = browser::Check {
        query: (
            "{ orderingCustomer(id: \"seen\") { name { lastName } creditCards { last4 } } }",
            "\"last4\": \"1111\"",
        ),
        subscription: (
            "subscription { orderUpdated(customerId: \"seen\") { type order { total } } }",
            "\"total\": \"25.00\"",
        ),
    };
    browser::check_graphiql(&tandem.gateway_url(""), check, async || {
        let placed = http
            .post(tandem.gateway_url("/graphql"))
            .header("content-type", "application/json")
            .body(order.clone())
            .send()
            .await
            .unwrap();
        assert!(placed.status().is_success());
    })
    .await;
    tokio::task::block_in_place(|| drop(tandem));
}
