//! The time limit of an operation as a whole, and of a service's call within it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem_backends::free_port;

use super::process::{self, Gateway};
use super::resilience::{Reply, Scripted};
use super::{stub, wait_until};

/// A gateway with a time limit of one second per operation.
async fn gateway(accounts: &str, orders: &str) -> Gateway {
    let (data, port) = (tempfile::tempdir().unwrap(), free_port().unwrap());
    let mut command = process::command(port, accounts, orders, data.path());
    command.args(["--operation-timeout-seconds", "1"]);
    Gateway::start_command(command, port, data).await
}

#[tokio::test]
async fn a_mutation_of_many_fields_ends_with_its_time_and_no_further_field_is_begun() {
    const FIELDS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "G", "H"];
    let orders = Scripted::start(|body| {
        let mut fields = FIELDS.into_iter();
        let is_of = |id: &str| body.contains(&format!("\\\"{id}\\\""));
        let id = fields.find(|id| is_of(id)).unwrap();
        let order = json!({"order": {"id": id}});
        Reply::Answer(
            json!({"data": {id.to_lowercase(): order}}),
            Duration::from_millis(400),
        )
    });
    let gateway = gateway(&stub::nowhere(), &orders.url).await;
    let field = |id: &str| {
        let alias = id.to_lowercase();
        format!("{alias}: cancelOrder(id: \"{id}\") {{ order {{ id }} }} ")
    };
    let fields: String = FIELDS.into_iter().map(field).collect();

    let answer = gateway.query(&format!("mutation {{ {fields} }}")).await;

    assert_eq!(answer["data"], Value::Null, "{answer}");
    let errors = answer["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{answer}");
    assert_eq!(errors[0]["extensions"]["code"], "UNAVAILABLE");
    let message = errors[0]["message"].as_str().unwrap();
    assert!(
        message.contains("1 s") && message.contains("--operation-timeout-seconds"),
        "{message}"
    );
    // The late field is named, and it is the last one that was begun.
    let path = errors[0]["path"][0].as_str().unwrap().to_uppercase();
    let late = FIELDS.iter().position(|id| *id == path).unwrap();
    let begun = late + usize::from(message.contains("is not known"));
    assert!(begun < FIELDS.len(), "{answer}");
    assert_eq!(
        gateway.query("{ __typename }").await["data"]["__typename"],
        "Query"
    );
    // A field that was begun at the very end may not have reached the service.
    assert!(orders.calls() <= begun, "{answer}");
}

#[tokio::test]
async fn a_query_that_nothing_answers_ends_with_its_time_and_its_call_of_a_service_too() {
    let accounts = Scripted::start(|_| Reply::Stall);
    let gateway = gateway(&accounts.url, &stub::nowhere()).await;
    let begun = Instant::now();

    let answer = gateway.query(r#"{ customer(id: "1") { id } }"#).await;

    // The limit of the service's call alone is ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(8), "{answer}");
    assert_eq!(answer["data"], Value::Null, "{answer}");
    let error = &answer["errors"][0];
    assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("--operation-timeout-seconds"), "{message}");
    wait_until("the call is given up", || accounts.left() == 1).await;
}

#[tokio::test]
async fn a_change_that_a_service_does_not_answer_is_not_said_to_be_undone() {
    let accounts = Scripted::start(|_| Reply::Stall);
    let orders = Scripted::start(|_| Reply::BreakOff);
    let gateway = Gateway::start_with(&accounts.url, &orders.url, |configuration| {
        *configuration = configuration.replace("request_timeout: 10s", "request_timeout: 300ms");
    })
    .await;
    for change in [
        r#"eraseCustomer(id: "1") { id }"#,
        r#"cancelOrder(id: "1") { order { id } }"#,
    ] {
        let answer = gateway.query(&format!("mutation {{ {change} }}")).await;
        let error = &answer["errors"][0];
        assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
        let message = error["message"].as_str().unwrap();
        assert!(message.contains("is not known"), "{answer}");
    }
    assert_eq!((accounts.calls(), orders.calls()), (1, 1));
}

#[tokio::test]
async fn a_service_that_hangs_is_asked_once_in_an_operation_and_costs_its_own_parts_alone() {
    let accounts = Scripted::start(|_| Reply::Stall);
    let orders = stub::orders().await;
    let gateway = Gateway::start_with(&accounts.url, &orders.url, |configuration| {
        *configuration = configuration.replace("request_timeout: 10s", "request_timeout: 300ms");
    })
    .await;
    for operation in 1..=2 {
        let answer = gateway
            .query(r#"{ customer(id: "1") { id } orderingCustomer(id: "1") { id revision } }"#)
            .await;
        let ordering = json!({"id": "1", "revision": null});
        assert_eq!(
            answer["data"],
            json!({"customer": null, "orderingCustomer": ordering})
        );
        let errors = answer["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 2, "{answer}");
        for error in errors {
            assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("in time"), "{answer}");
        }
        // The next operation calls the service again.
        assert_eq!(accounts.calls(), operation);
    }
}
