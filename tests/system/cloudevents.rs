//! The records on the topics are CloudEvents 1.0 in binary mode, as any consumer reads them, and contain no card
//! numbers.

use std::path::{Path, PathBuf};

use rdkafka::ClientConfig;
use serde_json::{Value, json};

use super::support::{
    Client, Signal, Tandem,
    checker::{CUSTOMER_TOPIC, LoggedEvent, ORDER_TOPIC, whole_topic},
    graph::{ADVANCE, CREATE, PLACE, SAMPLE_BODY, UPDATE, customer_input, order_input},
    poll,
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn traceparent() -> String {
    format!("00-{TRACE}-b7ad6b7169203331-01")
}

fn events(tandem: &Tandem, topic: &str, count: usize) -> Vec<LoggedEvent> {
    let mut kafka = ClientConfig::new();
    kafka.set("bootstrap.servers", tandem.bootstrap_servers());
    poll(&format!("{count} events on {topic}"), || {
        let events = whole_topic(&kafka, topic);
        (events.len() >= count).then_some(events)
    })
}

#[track_caller]
fn is_cloud_event(event: &LoggedEvent, source: &str, kind: &str, schema: &str, version: &str) {
    let headers = &event.headers;
    assert_eq!(headers["ce_specversion"], "1.0");
    assert_eq!(headers["ce_source"], source);
    assert_eq!(headers["ce_type"], kind);
    assert_eq!(headers["ce_subject"], event.key);
    assert_eq!(
        headers["ce_dataschema"],
        format!("urn:tandem:schema:{schema}:{version}")
    );
    assert_eq!(headers["content-type"], "application/json");
    uuid::Uuid::parse_str(&headers["ce_id"]).unwrap();
    let body = &event.body;
    assert_eq!(body["id"], json!(event.key));
    assert_eq!(body["changedAt"], json!(headers["ce_time"]));
    assert!(headers["ce_time"].ends_with('Z'), "{headers:#?}");
    for field in ["revision", "changeType", "changedBy"] {
        assert!(!body[field].is_null(), "{field} is missing: {body:#}");
    }
    let schema = format!(
        "{}/schema/events/{schema}.{version}.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let schema: Value = serde_json::from_slice(&std::fs::read(schema).unwrap()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(body)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:#?} in {body:#}");
}

#[test]
fn what_is_on_the_topics_is_cloud_events_with_the_trace_of_the_request() {
    let tandem = Tandem::start();
    let client = Client::new();
    let traced = |url: String, query: &str, variables: Value| -> Value {
        let answer = client.traced(&url, &traceparent(), query, variables);
        assert!(answer["errors"].is_null(), "{answer:#}");
        answer["data"].clone()
    };
    // Through the gateway, and at the service itself.
    traced(
        tandem.gateway_url("/graphql"),
        CREATE,
        json!({"input": customer_input("events", "Lovelace")}),
    );
    traced(
        tandem.accounts_url("/graphql"),
        UPDATE,
        json!({"id": "events", "input": {"addresses": []}}),
    );
    let customers = events(&tandem, CUSTOMER_TOPIC, 2);
    tandem.replicated(&client, "events", 1);
    let order = {
        tandem.customer(&client, "buyer");
        let data = traced(
            tandem.orders_url("/graphql"),
            PLACE,
            json!({"input": order_input("buyer")}),
        );
        data["placeOrder"]["order"]["id"].clone()
    };
    traced(
        tandem.gateway_url("/graphql"),
        ADVANCE,
        json!({"id": order, "to": "CONFIRMED"}),
    );
    let orders = events(&tandem, ORDER_TOPIC, 2);
    for event in &customers {
        is_cloud_event(
            event,
            "/accounts",
            "CustomerChangeEvent",
            "customer-change-event",
            "v2",
        );
    }
    for event in &orders {
        is_cloud_event(
            event,
            "/orders",
            "OrderChangeEvent",
            "order-change-event",
            "v1",
        );
        assert_eq!(event.body["customerId"], "buyer");
    }
    let told = |events: &[LoggedEvent]| -> Vec<(i64, String)> {
        events
            .iter()
            .map(|event| {
                (
                    event.revision,
                    event.body["changeType"].as_str().unwrap().to_owned(),
                )
            })
            .collect()
    };
    assert_eq!(
        told(&customers),
        [(1, "CREATED".to_owned()), (2, "UPDATED".to_owned())]
    );
    assert_eq!(
        told(&orders),
        [(1, "PLACED".to_owned()), (2, "CONFIRMED".to_owned())]
    );
    for event in customers.iter().chain(&orders) {
        let carried = event
            .headers
            .get("ce_traceparent")
            .map(String::as_str)
            .unwrap_or_default();
        assert!(
            carried.starts_with(&format!("00-{TRACE}-")),
            "the trace is lost: {:#?}",
            event.headers
        );
    }
}

/// Every file below a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn no_card_number_is_on_a_topic_in_the_data_directory_or_in_a_log() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new();
    let numbers = [
        "4111111111111111",
        "1234-6789-0000-0000",
        "1234678900000000",
    ];
    let told = {
        let mut tandem = Tandem::builder()
            .data_dir(directory.path())
            .flag("--log")
            .flag("debug")
            .start();
        tandem.customer(&client, "carded");
        let sent = client.post(
            &tandem.gateway_url("/accounts/customer/create"),
            "application/json",
            SAMPLE_BODY,
        );
        assert_eq!(sent.status, 201);
        // A refusal because of the number must not repeat the number either.
        let mut bad = customer_input("refused", "Lovelace");
        bad["creditCards"][0]["number"] = json!("41111111111111112222333344445555");
        let refused = client.graphql(
            &tandem.gateway_url("/graphql"),
            CREATE,
            json!({"input": bad}),
        );
        assert!(!refused["errors"].is_null());
        assert!(!refused.to_string().contains("4111111111"), "{refused:#}");
        tandem.replicated(&client, "123456", 1);
        for event in events(&tandem, CUSTOMER_TOPIC, 2) {
            for number in numbers {
                assert!(!contains(&event.payload, number), "{}", event.body);
            }
            assert!(
                event.body["creditCards"][0]["last4"].is_string()
                    || !event.body.to_string().contains("nameOnCard")
            );
        }
        tandem.process.signal(Signal::TERM);
        tandem
            .process
            .wait_for_end(std::time::Duration::from_secs(20));
        let (output, errors) = tandem.process.all_output();
        format!("{output}{errors}")
    };
    let mut found = Vec::new();
    files(directory.path(), &mut found);
    // The search works: it finds the id in both stores and in the broker's file.
    let with_id = found
        .iter()
        .filter(|file| contains(&std::fs::read(file).unwrap(), "carded"))
        .count();
    assert!(with_id >= 3, "the search finds too little in {found:?}");
    for file in found {
        let bytes = std::fs::read(&file).unwrap();
        for number in numbers {
            assert!(
                !contains(&bytes, number),
                "{number} is in {}",
                file.display()
            );
        }
    }
    for number in numbers {
        assert!(
            !told.contains(number),
            "{number} is in what the processes said"
        );
    }
}
