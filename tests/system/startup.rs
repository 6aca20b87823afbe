//! Starts in which something is missing: a database that is down (alive, not ready, and in service as soon as the
//! database is up), and a system without certificate authorities.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_backends::{Mongo, require};
use tokio::runtime::Runtime;

use super::support::{
    Client, Process, Tandem, graph::ORDERING_CUSTOMER, poll, poll_for, tandem_command,
};

#[test]
fn services_without_their_database_are_alive_and_open_when_it_comes() {
    require!(mongod);
    let runtime = Runtime::new().unwrap();
    let mongo = runtime.block_on(Mongo::start(1)).unwrap();
    mongo.kill(0).unwrap();

    let mut tandem = Tandem::builder()
        .flag("--no-restart")
        .flag("--mongodb-uri")
        .flag(mongo.uri())
        .spawn();
    let client = Client::new();
    let urls = [tandem.accounts_url(""), tandem.orders_url("")];
    for url in &urls {
        let health = poll_for(
            Duration::from_secs(90),
            &format!("{url} says that its store is away"),
            || {
                let health = client.try_get(&format!("{url}/actuator/health/readiness"))?;
                assert_eq!(health.status, 503, "{}", health.body);
                let store = health.json()["components"]["store"].clone();
                (store["status"] == "DOWN").then_some(store)
            },
        );
        assert!(
            health["details"]["error"]
                .as_str()
                .unwrap()
                .contains("away"),
            "{health}"
        );
        let live = client.get(&format!("{url}/actuator/health/liveness"));
        assert_eq!(live.status, 200);
        assert_eq!(
            client.get(&format!("{url}/actuator/prometheus")).status,
            200
        );
        let refused = client.graphql(&format!("{url}/graphql"), "{ __typename }", json!({}));
        assert_eq!(refused["errors"][0]["extensions"]["code"], "UNAVAILABLE");
        let early = client.get(&format!("{url}/accounts/customer/print"));
        assert_eq!(
            (early.status, early.content_type.as_str()),
            (503, "application/problem+json")
        );
    }
    // Through the gateway it looks like a service that cannot be reached.
    let query = "{ customer(id: 1) { id } orderingCustomer(id: 1) { id } }";
    let answer = poll("the gateway answers", || {
        let gateway = tandem.gateway_url("/graphql");
        client.try_graphql(&gateway, query, json!({})).ok()
    });
    for error in answer["errors"].as_array().unwrap() {
        assert_eq!(error["extensions"]["code"], "UNAVAILABLE", "{answer}");
    }
    let children = poll("both services are started", || {
        Some([tandem.child("accounts")?, tandem.child("orders")?])
    });

    runtime.block_on(mongo.start_again(0)).unwrap();
    tandem.wait_until_ready();
    assert_eq!(
        [tandem.child("accounts"), tandem.child("orders")],
        children.map(Some),
        "a service was restarted"
    );
    tandem.customer(&client, "late");
    let read: Value = client.data(
        &tandem.gateway_url("/graphql"),
        ORDERING_CUSTOMER,
        json!({"id": "late"}),
    );
    assert_eq!(read["orderingCustomer"]["name"]["lastName"], "Lovelace");
}

#[test]
fn a_line_end_behind_the_connection_string_of_mongodb_does_not_count() {
    require!(mongod);
    let runtime = Runtime::new().unwrap();
    let mongo = runtime.block_on(Mongo::start(1)).unwrap();
    // A variable that is filled from a file often ends in a newline. The newline would become part of the last option,
    // the name of the replica set.
    let tandem = Tandem::builder()
        .env("TANDEM_MONGODB_URI", format!("{}\n", mongo.uri()))
        .start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    for embedded in ["accounts.redb", "orders.redb"] {
        assert!(!tandem.data_dir().join(embedded).exists(), "{embedded}");
    }
}

/// Makes the search for certificate authorities find nothing, as in a container with only a C library.
fn no_authorities(folder: &std::path::Path) -> [(&'static str, String); 2] {
    let file = folder.join("none.pem");
    std::fs::write(&file, "").unwrap();
    [
        ("SSL_CERT_FILE", file.display().to_string()),
        ("SSL_CERT_DIR", folder.display().to_string()),
    ]
}

#[test]
fn a_system_without_certificate_authorities_runs_everything_but_services_with_tls() {
    let folder = tempfile::tempdir().unwrap();
    let variables = no_authorities(folder.path());
    let mut builder = Tandem::builder();
    for (name, value) in &variables {
        builder = builder.env(name, value);
    }
    let tandem = builder.start();
    let client = Client::new();
    tandem.customer(&client, "ada");
    drop(tandem);

    let mut gateway = Process::start(
        tandem_command()
            .args(["router", "--accounts-url", "https://accounts.invalid"])
            .arg("--data-dir")
            .arg(folder.path())
            .envs(variables),
    );
    assert!(!gateway.wait_for_end(Duration::from_secs(30)).success());
    let (_, errors) = gateway.all_output();
    let told = "--accounts-url https://accounts.invalid cannot be trusted";
    assert!(errors.contains(told), "{errors}");
}
