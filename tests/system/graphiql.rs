//! The start page, and GraphiQL of the gateway and of each service, in a headless Chromium on the real system.

use serde_json::json;

use super::support::{
    Client, Tandem, browser,
    graph::{PLACE, order_input},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sees_what_runs_on_the_start_page_and_tries_the_first_query() {
    let tandem = tokio::task::block_in_place(Tandem::start);
    browser::check_start_page(&tandem.gateway_url("")).await;
    tokio::task::block_in_place(|| drop(tandem));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_service_has_a_graphiql_of_its_own() {
    let tandem = tokio::task::block_in_place(|| {
        let tandem = Tandem::start();
        tandem.customer(&Client::new(), "own");
        tandem
    });
    let check = browser::Check {
        query: ("{ customer(id: \"own\") { revision } }", "\"revision\": 1"),
        subscription: None,
    };
    browser::check_graphiql(&tandem.accounts_url(""), check, async || {}).await;
    let http = reqwest::Client::new();
    let order = json!({"query": PLACE, "variables": {"input": order_input("own")}}).to_string();
    let check = browser::Check {
        query: (
            "{ orderingCustomer(id: \"own\", minRevision: 1) { replica { revision } } }",
            "\"revision\": 1",
        ),
        subscription: Some((
            "subscription { orderUpdated(customerId: \"own\") { type order { total } } }",
            "\"total\": \"25.00\"",
        )),
    };
    browser::check_graphiql(&tandem.orders_url(""), check, async || {
        let placed = http
            .post(tandem.orders_url("/graphql"))
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
        subscription: Some((
            "subscription { orderUpdated(customerId: \"seen\") { type order { total } } }",
            "\"total\": \"25.00\"",
        )),
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
