//! The gateway in front of two stub services: what it passes on, what it answers itself, and what it does when one is
//! down.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout
)]

mod browser;
mod old_routes;
mod operations;
mod pages;
mod plans;
mod process;
mod resilience;
mod rest;
mod stub;
mod subscriptions;
mod time_limit;

use std::time::Duration;

use process::Gateway;
use serde_json::{Value, json};

const BOTH: &str =
    r#"{ orderingCustomer(id: "1") { id name { firstName } replica { revision } revision } }"#;

#[tokio::test]
async fn one_answer_joins_both_services_in_one_hop_each() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;

    let answer = gateway.query(BOTH).await;

    let customer = json!({ "id": "1", "name": { "firstName": "Ada" }, "replica": { "revision": 7 }, "revision": 7 });
    assert_eq!(answer, json!({ "data": { "orderingCustomer": customer } }));
    assert_eq!(orders.take_requests().len(), 1);
    assert_eq!(accounts.take_requests().len(), 1);
}

#[tokio::test]
async fn a_dead_service_leaves_the_others_part_of_an_answer() {
    let orders = stub::orders().await;
    let gateway = Gateway::start(&stub::nowhere(), &orders.url).await;

    let answer = gateway.query(BOTH).await;
    println!("{answer}");

    assert_eq!(
        answer["data"]["orderingCustomer"]["name"]["firstName"],
        "Ada"
    );
    assert_eq!(answer["data"]["orderingCustomer"]["replica"]["revision"], 7);
    assert_eq!(answer["data"]["orderingCustomer"]["revision"], Value::Null);
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{answer}");
    assert_eq!(errors[0]["extensions"]["code"], "UNAVAILABLE");
    assert_eq!(errors[0]["extensions"]["service"], "accounts");
}

#[tokio::test]
async fn a_services_error_keeps_its_message_code_field_and_cursor() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;

    let answer = gateway.query(r#"{ customer(id: "refused") { id } }"#).await;

    let error = &answer["errors"][0];
    assert_eq!(answer["data"], json!({ "customer": null }));
    assert_eq!(error["message"], "id `refused` is refused");
    assert_eq!(error["path"], json!(["customer"]));
    assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT");
    assert_eq!(error["extensions"]["field"], "id");
    assert_eq!(error["extensions"]["cursor"], "c-42");
}

#[tokio::test]
async fn a_service_that_does_not_answer_in_time_counts_as_away() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start_with(&accounts.url, &orders.url, |configuration| {
        *configuration = configuration.replace("request_timeout: 10s", "request_timeout: 200ms");
    })
    .await;

    let answer = gateway
        .query(r#"{ customer(id: "slow") { id } orderingCustomer(id: "1") { id } }"#)
        .await;

    assert_eq!(
        answer["data"],
        json!({ "customer": null, "orderingCustomer": { "id": "1" } })
    );
    assert_eq!(answer["errors"][0]["extensions"]["code"], "UNAVAILABLE");
    assert_eq!(
        answer["errors"][0]["message"],
        "The accounts service did not answer in time: what only it knows is null; try again later."
    );
}

#[tokio::test]
async fn an_operation_that_the_schema_does_not_have_is_bad_input() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    for query in [
        "{ customer(id: 1) { id shoeSize } }",
        "{ customer { id } }",
        "{ customer(id: 1) { name } }",
        "{ customer(id: 1) { id }",
        "query($id: Nothing) { customer(id: $id) { id } }",
    ] {
        let answer = gateway.query(query).await;
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{answer}");
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    let wrong = json!({ "query": "query($id: ID!) { customer(id: $id) { id } }", "variables": { "id": null } });
    let answer = gateway.post(wrong).await.json::<Value>().await.unwrap();
    assert_eq!(
        answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
        "{answer}"
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_read_is_told_what_would_be_right() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let (json, text) = ("application/json", "text/plain");
    let object = r#"{"query": "#;
    for (kind, body, status, advice) in [
        (json, "not json", 400, object),
        (json, "", 400, object),
        (json, r#"[{"query": "{ __typename }"}]"#, 400, object),
        (json, r#"{"query": 5}"#, 400, object),
        (json, r#"{"qery": "{ __typename }"}"#, 400, object),
        (text, r#"{"query": "{ __typename }"}"#, 415, json),
    ] {
        let response = gateway.send(kind, body).await;
        assert_eq!(response.status(), status, "{body}");
        let answer: Value = response.json().await.unwrap();
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "BAD_USER_INPUT", "{answer}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(advice), "{body}: {message}");
    }
}

#[tokio::test]
async fn a_request_beyond_a_limit_is_refused() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;

    let deep = format!(
        "{{ order(id: 1) {}{} }}",
        "{ customer { orders { nodes ".repeat(9),
        "{ id }".to_owned() + &" } } }".repeat(9)
    );
    let aliases = format!(
        "{{ {} }}",
        (0..201)
            .map(|n| format!("a{n}: __typename "))
            .collect::<String>()
    );
    let tokens = format!("{{ customer(id: 1) {{ {} }} }}", "id ".repeat(6000));
    for query in [deep, aliases, tokens] {
        let answer = gateway.query(&query).await;
        assert_eq!(answer["data"], Value::Null, "{answer}");
        assert_eq!(
            answer["errors"][0]["extensions"]["code"], "BAD_USER_INPUT",
            "{answer}"
        );
    }
    let large = gateway
        .post(json!({ "query": "{ __typename }", "variables": { "a": "x".repeat(1 << 20) } }))
        .await;
    assert_eq!(large.status(), 413);
    assert!(accounts.take_requests().is_empty());
}

#[tokio::test]
async fn introspection_works_without_any_service() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let answer = gateway
        .query("{ __schema { subscriptionType { name } } }")
        .await;
    assert_eq!(
        answer,
        json!({ "data": { "__schema": { "subscriptionType": { "name": "Subscription" } } } })
    );
    let answer = gateway.query("{ __schema { directives { name } } }").await;
    let directives = answer["data"]["__schema"]["directives"].as_array().unwrap();
    for name in ["skip", "include", "deprecated", "specifiedBy"] {
        let described = directives.iter().filter(|it| it["name"] == name).count();
        assert_eq!(described, 1, "{name}: {answer}");
    }
    assert_eq!(
        gateway.query("{ a: __typename __typename }").await,
        json!({ "data": { "a": "Query", "__typename": "Query" } })
    );
}

#[tokio::test]
async fn a_taken_port_is_one_clear_sentence() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let data = tempfile::tempdir().unwrap();

    let ended = process::command(
        port,
        "http://127.0.0.1:1",
        "http://127.0.0.1:1",
        data.path(),
    )
    .output()
    .unwrap();

    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains(&format!(
            "the gateway's port {port} on 127.0.0.1 is taken by another process"
        )),
        "{said}"
    );
    assert_eq!(said.trim().lines().count(), 1, "{said}");
}

#[tokio::test]
async fn a_url_that_does_not_fit_says_which_flag_and_what_would_be_right() {
    let data = tempfile::tempdir().unwrap();
    let ended = process::command(0, "accounts:8080", "http://127.0.0.1:1", data.path())
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("--accounts-url") && said.contains("http://127.0.0.1:8080"),
        "{said}"
    );
}

#[tokio::test]
async fn sigterm_ends_the_gateway_in_time_with_a_subscription_open() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let events = subscriptions::sse(&gateway, subscriptions::CUSTOMER).await;
    wait_until("the subscription is open", || orders.subscribers() == 1).await;

    let seconds = gateway.terminate().await;

    println!("ended after {seconds} s");
    assert!(seconds < 3.0, "{seconds}");
    drop(events);
}

/// Polls until `done`, for at most 20 s.
async fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !done() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "not after 20 s: {what}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn graphiql_runs_a_query_and_shows_a_subscriptions_update() {
    let (accounts, orders) = (stub::accounts().await, stub::orders().await);
    let gateway = Gateway::start(&accounts.url, &orders.url).await;
    let check = browser::Check {
        query: (BOTH, r#""firstName": "Ada""#),
        subscription: Some((
            r#"subscription { orderUpdated(customerId: "1") { cursor order { id status } } }"#,
            r#""cursor": "cursor-8""#,
        )),
    };
    browser::check_graphiql(&gateway.url, check, async || orders.update(8)).await;
}
