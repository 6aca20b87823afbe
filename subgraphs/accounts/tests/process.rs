//! The whole service while Kafka is away.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use clap::Parser;
use common::SAMPLE;
use tandem_accounts::service::{self, Settings};
use tandem_backends::{eventually, free_port};
use tandem_event_path::rebuild::mark_filled;
use tandem_runtime::shutdown::Shutdown;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    settings: Settings,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_kafka_customers_are_served_and_the_service_ends_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    // The store must not be new: a new one waits for Kafka, to see whether the log already has customers.
    let stores = common::open(directory.path()).await;
    mark_filled(stores.registry.as_ref()).await.unwrap();
    drop(stores);

    let port = free_port().unwrap();
    let command = Command::try_parse_from([
        "accounts",
        "--port",
        &port.to_string(),
        "--data-dir",
        directory.path().to_str().unwrap(),
        "--sealing-key-file",
        key.to_str().unwrap(),
        "--kafka-brokers",
        &format!("127.0.0.1:{}", free_port().unwrap()),
        "--outbox-unready-seconds",
        "1",
    ])
    .unwrap();
    let shutdown = Shutdown::new();
    let running = tokio::spawn(service::run(command.settings, shutdown.clone()));

    let client = reqwest::Client::new();
    let at = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let status = async |path: &str| {
        let answer = client.get(at(path)).send().await.ok()?;
        Some(answer.status().as_u16())
    };
    eventually("it is ready", async || {
        status("/actuator/health/readiness").await == Some(200)
    })
    .await;
    let created = client
        .post(at("/accounts/customer/create"))
        .header("content-type", "application/json")
        .body(SAMPLE)
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    for path in ["/v3/api-docs", "/swagger-ui/index.html", "/actuator/info"] {
        assert_eq!(status(path).await, Some(200), "{path}");
    }
    assert_eq!(status("/admin/dead-letters").await, Some(401));
    // The event is pending longer than this test's limit. The service gets no more requests, but is not restarted
    // either.
    eventually("it is ready no longer", async || {
        status("/actuator/health/readiness").await == Some(503)
    })
    .await;
    assert_eq!(status("/actuator/health/liveness").await, Some(200));

    shutdown.request("the test is over");
    tokio::time::timeout(Duration::from_secs(5), running)
        .await
        .expect("the service did not end in time")
        .unwrap()
        .unwrap();
}
