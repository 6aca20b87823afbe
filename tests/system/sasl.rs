//! Kafka with the protocol of Confluent Cloud, SASL_SSL with PLAIN: the whole path, and one clear error for a wrong
//! password.

use std::time::{Duration, Instant};

use serde_json::json;
use tandem_backends::{Kafka, KafkaOptions, free_port, require};
use tokio::runtime::Runtime;

use super::support::{
    Client, Process, Signal, Tandem, Transport, graph::UPDATE, poll, poll_for, tandem_command,
};

fn kafka() -> (Runtime, Kafka) {
    let runtime = Runtime::new().unwrap();
    let options = KafkaOptions {
        sasl_ssl: true,
        ..KafkaOptions::default()
    };
    let kafka = runtime.block_on(Kafka::start(options)).unwrap();
    (runtime, kafka)
}

/// The properties other than the brokers, as KEY=VALUE, with this password.
fn properties(kafka: &Kafka, password: Option<&str>) -> Vec<String> {
    kafka
        .client_properties()
        .into_iter()
        .filter(|(key, _)| key != "bootstrap.servers")
        .map(|(key, value)| match password {
            Some(password) if key == "sasl.password" => format!("{key}={password}"),
            _ => format!("{key}={value}"),
        })
        .collect()
}

#[test]
fn the_whole_path_runs_over_sasl_ssl() {
    require!(kafka);
    let (runtime, kafka) = kafka();
    let mut tandem = Tandem::builder()
        .flag("--kafka-brokers")
        .flag(kafka.bootstrap());
    for property in properties(&kafka, None) {
        tandem = tandem.flag("--kafka-property").flag(property);
    }
    let tandem = tandem.start();
    let client = Client::new();
    tandem.customer(&client, "secure");
    let live = client.subscribe(
        Transport::ServerSentEvents,
        &tandem.gateway_url("/graphql"),
        "subscription { orderUpdated(customerId: \"secure\") { type order { id } } }",
        json!({}),
    );
    poll("an order reaches a subscriber", || {
        tandem.order(&client, "secure");
        live.next_within(Duration::from_millis(500))
    });
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": "secure", "input": name}),
    );
    tandem.replicated(&client, "secure", 2);
    let password = kafka.credentials().unwrap().password.clone();
    assert!(
        !tandem.process.errors().contains(&password)
            && !tandem.process.output().contains(&password),
        "the password is in the log"
    );
    drop(runtime);
}

#[test]
fn a_wrong_password_is_one_clear_sentence() {
    require!(kafka);
    let (runtime, kafka) = kafka();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("sealing.key");
    std::fs::write(&key, "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let port = free_port().unwrap();
    for service in ["accounts", "orders"] {
        let mut command = tandem_command();
        command
            .arg(service)
            .args(["--port", &port.to_string()])
            .arg("--data-dir")
            .arg(directory.path())
            .arg("--sealing-key-file")
            .arg(&key)
            .args(["--kafka-brokers", &kafka.bootstrap()]);
        for property in properties(&kafka, Some("wrong-password")) {
            command.arg("--kafka-property").arg(property);
        }
        let begun = Instant::now();
        let mut process = Process::start(&mut command);
        let client = Client::new();
        let health = poll("health tells of the refused login", || {
            let health = client
                .try_get(&format!("http://127.0.0.1:{port}/actuator/health"))?
                .json();
            let told = health["components"]["kafka"].clone();
            told.to_string()
                .contains("authentication failed")
                .then_some(told)
        });
        assert_eq!(health["status"], "DOWN", "{health:#}");
        assert!(health.to_string().contains("sasl.password"), "{health:#}");
        // Long enough for many attempts, and for requests to time out.
        poll_for(Duration::from_secs(30), "it has tried for a while", || {
            (begun.elapsed() > Duration::from_secs(14)).then_some(())
        });
        process.signal(Signal::TERM);
        process.wait_for_end(Duration::from_secs(20));
        let (_, log) = process.all_output();
        let lines = |text: &str| {
            log.lines()
                .filter(|line| line.to_lowercase().contains(text))
                .count()
        };
        assert_eq!(lines("authentication failed"), 1, "{log}");
        assert!(
            log.contains("correct sasl.username and sasl.password"),
            "{log}"
        );
        assert_eq!(lines("timed out"), 0, "{log}");
        assert_eq!(lines("timeout"), 0, "{log}");
        assert!(log.lines().count() < 12, "a flood:\n{log}");
        assert!(!log.contains("wrong-password"), "{log}");
    }
    drop(runtime);
}
