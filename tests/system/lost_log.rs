//! A log that was lost, recreated or truncated. Nothing is concluded from that. Entries are removed only on an order
//! that gives their number, and the log is restored from the stores.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem,
    graph::{ADVANCE, CREATE, UPDATE, customer_input},
    ground::{CUSTOMERS, Ground, KEYS, Log, ORDERS},
    poll, poll_for,
};

const NAMES: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } } }";
const OLD: usize = 12;

fn revision(tandem: &Tandem, client: &Client, id: &str) -> Value {
    let url = tandem.accounts_url("/graphql");
    client.data(&url, NAMES, json!({"id": id}))["customer"]["revision"].clone()
}

fn health(client: &Client, url: &str, component: &str) -> Option<Value> {
    let answer = client.try_get(&format!("{url}/actuator/health"))?;
    Some(answer.json()["components"][component].clone())
}

/// How many stored entries differ from the log, according to a rebuild.
fn left(output: &str) -> u64 {
    let line = output
        .lines()
        .find(|line| line.contains("left as they are"));
    line.map_or(0, |line| {
        let number = line.split(' ').next().unwrap();
        number.parse().unwrap()
    })
}

#[test]
fn a_log_that_was_lost_takes_nothing_from_the_stores_and_is_made_again_from_them() {
    lost(&mut Ground::embedded());
}

#[test]
fn a_log_that_was_lost_takes_nothing_from_the_stores_and_is_made_again_from_them_on_real_servers() {
    require!(mongod, kafka);
    lost(&mut Ground::on_real_servers());
}

fn lost(ground: &mut Ground) {
    let client = Client::new();
    let old: Vec<String> = (0..OLD).map(|number| format!("old{number}")).collect();
    let order = {
        let tandem = ground.start();
        for id in &old {
            tandem.customer(&client, id);
        }
        let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
        let gateway = tandem.gateway_url("/graphql");
        client.data(&gateway, UPDATE, json!({"id": "old0", "input": name}));
        tandem.replicated(&client, "old0", 2);
        let order = tandem.order(&client, "old0");
        client.data(&gateway, ADVANCE, json!({"id": order, "to": "CONFIRMED"}));
        tandem.published(&client);
        tandem.audited(&client, "customer", "old0", 2);
        tandem.audited(&client, "order", &order, 2);
        order
    };
    ground.lose_log();

    let tandem = ground.start();
    for number in 0..=OLD {
        tandem.customer(&client, &format!("new{number}"));
    }
    for (service, url) in [
        ("accounts", tandem.accounts_url("")),
        ("orders", tandem.orders_url("")),
    ] {
        let told = poll("health says that the log is another one", || {
            let told = health(&client, &url, "log")?;
            (told["status"] == "DEGRADED").then_some(told)
        });
        let alarms = told["details"]["alarms"].as_str().unwrap();
        assert!(alarms.contains("accounts.customer.change/"), "{alarms}");
        let said = tandem.operate(&["log", "status", service]);
        assert!(
            !said.succeeded && said.output.contains("accounts.customer.change/"),
            "{said:#?}"
        );
        // The operator's page shows the log by partition, with what the store expects.
        let path = format!("/operations/{service}/admin/log/partitions");
        let logs = client.get(&tandem.gateway_url(&path)).json();
        let log = logs.as_array().unwrap().iter();
        let log = log
            .filter(|log| log["topic"] == "accounts.customer.change" && log["checked"] == true)
            .flat_map(|log| log["partitions"].as_array().unwrap());
        let mut alarmed = log.filter(|partition| partition["alarm"].is_string());
        let remembered = alarmed.next().map(|partition| &partition["remembered"]);
        assert!(remembered.is_some_and(Value::is_object), "{logs:#}");
        let metrics = client.get(&format!("{url}/actuator/prometheus")).body;
        let gauge = metrics.lines().find(|line| {
            line.starts_with("log_alarms{") && line.contains("accounts.customer.change")
        });
        assert!(gauge.is_some_and(|line| !line.ends_with(" 0")), "{gauge:?}");
    }
    let mut lacking = 0;
    for service in ["accounts", "orders"] {
        let output = tandem.operated(&["rebuild", service]);
        assert!(output.contains(" 0 removed, 0 set back"), "{output}");
        if service == "accounts" {
            lacking = left(&output);
        } else {
            // The replica's rows, the order, and its two entries.
            assert_eq!(left(&output), OLD as u64 + 3, "{output}");
        }
    }
    // The customers, an entry for each, and one for the update.
    assert_eq!(lacking, 2 * OLD as u64 + 1);
    let removal = |confirmed: u64, file: &str| {
        let file = tandem.data_dir().join(file);
        let confirmed = confirmed.to_string();
        tandem.operate(&[
            "rebuild",
            "accounts",
            "--remove-what-the-log-lacks",
            "--confirm-removals",
            &confirmed,
            "--removed-file",
            file.to_str().unwrap(),
        ])
    };
    let refused = removal(lacking - 1, "refused");
    assert!(!refused.succeeded, "{refused:#?}");
    assert!(
        refused
            .errors
            .contains(&format!("{lacking} would be removed")),
        "{refused:#?}"
    );
    assert!(!tandem.data_dir().join("refused").exists());
    for id in &old {
        assert!(revision(&tandem, &client, id).is_i64(), "{id}");
    }

    // Removed on an order, and restored.
    let done = removal(lacking, "removed");
    assert!(done.succeeded, "{done:#?}");
    assert!(
        done.output
            .contains(&format!("{lacking} removed, 0 set back")),
        "{done:#?}"
    );
    assert_eq!(revision(&tandem, &client, "old0"), Value::Null);
    assert_eq!(revision(&tandem, &client, "new0"), 1);
    let file = tandem.data_dir().join("removed");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        !text.contains("King") && !text.contains("Lovelace"),
        "it is sealed"
    );
    let back = tandem.operated(&["restore", "accounts", file.to_str().unwrap()]);
    assert_eq!(back.trim(), format!("{lacking} taken back"));
    assert_eq!(revision(&tandem, &client, "old0"), 2);

    // In the other direction: the log is restored from the stores.
    let restored = tandem.operated(&["log", "restore", "accounts"]);
    assert_eq!(restored.trim(), format!("{OLD} written to the log"));
    let restored = tandem.operated(&["log", "restore", "orders"]);
    assert_eq!(restored.trim(), "1 written to the log");
    for service in ["accounts", "orders"] {
        tandem.operated(&["log", "accept", service]);
        tandem.operated(&["log", "status", service]);
    }
    // It is repaired. What the restored log cannot have is reported, stays, and is not offered for removal.
    for service in ["accounts", "orders"] {
        let output = tandem.operated(&["rebuild", service]);
        assert_eq!(left(&output), 0, "{output}");
        assert!(
            output.contains("history entries are only in the store"),
            "{output}"
        );
        let output = tandem.operated(&["rebuild", service, "--remove-what-the-log-lacks"]);
        assert!(output.contains("nothing is to be removed"), "{output}");
    }
    tandem.audited(&client, "customer", "old0", 2);
    tandem.audited(&client, "order", &order, 2);
    let log = Log::of(&tandem);
    for (topic, key, count) in [(CUSTOMERS, "old0", 2), (ORDERS, order.as_str(), 2)] {
        let told: Vec<_> = log
            .read(topic)
            .into_iter()
            .filter(|raw| raw.key == key)
            .collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].header("ce_tandemrestored").as_deref(), Some("true"));
        let body: Value = serde_json::from_slice(told[0].payload.as_deref().unwrap()).unwrap();
        assert_eq!(body["revision"], count);
    }
    assert!(log.read(KEYS).iter().any(|raw| raw.key == "old0"));
    drop(tandem);

    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let tandem = ground.start();
    for id in &old {
        tandem.replicated(&client, id, 1);
        assert!(revision(&tandem, &client, id).is_i64(), "{id}");
    }
    assert_eq!(revision(&tandem, &client, "old0"), 2);
    let found = client.data(
        &tandem.orders_url("/graphql"),
        "query($id: ID!) { order(id: $id) { status revision shipTo { address1 } } }",
        json!({"id": order}),
    );
    assert_eq!(
        found["order"],
        json!({"status": "CONFIRMED", "revision": 2, "shipTo": {"address1": "1 Ockham Park"}})
    );
    for url in [tandem.accounts_url(""), tandem.orders_url("")] {
        poll("health is well again", || {
            (health(&client, &url, "log")?["status"] == "UP").then_some(())
        });
    }
}

#[test]
fn a_topic_that_was_made_anew_and_has_grown_past_the_old_one_is_another_log() {
    made_anew(&Ground::embedded());
}

#[test]
fn a_topic_that_was_made_anew_is_another_log_on_real_servers() {
    require!(mongod, kafka);
    made_anew(&Ground::on_real_servers());
}

fn made_anew(ground: &Ground) {
    let client = Client::new();
    {
        let tandem = ground.start();
        tandem.customer(&client, "first");
        tandem.published(&client);
        tandem.audited(&client, "customer", "first", 1);
    }
    {
        let log = ground.log();
        let first = log.read(CUSTOMERS).remove(0);
        log.remove(CUSTOMERS);
        let mut others = Vec::new();
        for number in 0..5 {
            let mut other = first.clone();
            other.key = format!("other{number}");
            others.push(other);
        }
        log.put(CUSTOMERS, &others);
    }
    let tandem = ground.start();
    let told = poll("health says that the log is another one", || {
        let told = health(&client, &tandem.accounts_url(""), "log")?;
        (told["status"] == "DEGRADED").then_some(told)
    });
    let alarms = told["details"]["alarms"].as_str().unwrap();
    assert!(alarms.contains("it is another log"), "{alarms}");
    assert_eq!(revision(&tandem, &client, "first"), 1);
}

#[test]
fn a_topic_that_is_made_anew_while_everything_runs_is_told_of_and_read_on() {
    made_anew_while_running(&Ground::embedded());
}

#[test]
fn a_topic_that_is_made_anew_while_everything_runs_is_told_of_and_read_on_on_real_servers() {
    require!(mongod, kafka);
    made_anew_while_running(&Ground::on_real_servers());
}

fn made_anew_while_running(ground: &Ground) {
    let client = Client::new();
    let tandem = ground.start();
    for id in ["first", "second", "third"] {
        tandem.customer(&client, id);
        tandem.audited(&client, "customer", id, 1);
    }
    let services = [tandem.accounts_url(""), tandem.orders_url("")];
    for url in &services {
        poll("what was applied is remembered", || {
            let metrics = client.try_get(&format!("{url}/actuator/prometheus"))?.body;
            let gauge = metrics.lines().find(|line| {
                line.starts_with("log_partitions_remembered{") && line.contains(CUSTOMERS)
            });
            gauge
                .is_some_and(|line| !line.ends_with(" 0"))
                .then_some(())
        });
    }
    let log = Log::of(&tandem);
    log.remake(CUSTOMERS);
    // As many events are published at once as there were before, so that the new topic soon looks like the old one.
    for number in 0..30 {
        let input = customer_input(&format!("new{number}"), "Lovelace");
        client.data(
            &tandem.accounts_url("/graphql"),
            CREATE,
            json!({"input": input}),
        );
    }
    for url in &services {
        let told = poll_for(
            Duration::from_secs(90),
            "health says that the log is another one",
            || {
                let told = health(&client, url, "log")?;
                (told["status"] == "DEGRADED").then_some(told)
            },
        );
        let alarms = told["details"]["alarms"].as_str().unwrap();
        assert!(alarms.contains("accounts.customer.change/"), "{alarms}");
        let metrics = client.get(&format!("{url}/actuator/prometheus")).body;
        let gauge = metrics.lines().find(|line| {
            line.starts_with("log_alarms{") && line.contains("accounts.customer.change")
        });
        assert!(gauge.is_some_and(|line| !line.ends_with(" 0")), "{gauge:?}");
    }
    // The system goes on, with the events from before and after the log was accepted. What is stored stays.
    tandem.customer(&client, "last");
    for id in ["first", "new0", "new29", "last"] {
        tandem.replicated(&client, id, 1);
        assert_eq!(revision(&tandem, &client, id), 1);
    }
    tandem.audited(&client, "customer", "last", 1);
}

#[test]
fn a_new_store_refuses_a_log_whose_beginning_is_gone_until_it_is_told() {
    beginning_gone(&Ground::embedded());
}

#[test]
fn a_new_store_refuses_a_log_whose_beginning_is_gone_on_real_servers() {
    require!(mongod, kafka);
    beginning_gone(&Ground::on_real_servers());
}

fn beginning_gone(ground: &Ground) {
    let client = Client::new();
    {
        let tandem = ground.start();
        tandem.customer(&client, "c3");
        tandem.published(&client);
    }
    {
        let log = ground.log();
        let place = log.read(CUSTOMERS).remove(0);
        log.cut(CUSTOMERS, place.partition, place.offset + 1);
    }
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    {
        let tandem = ground.builder().spawn();
        for url in [tandem.accounts_url(""), tandem.orders_url("")] {
            let told = poll("the service says why it is not ready", || {
                let told = health(&client, &url, "filling")?;
                let reason = told["details"]["reason"].as_str()?;
                reason
                    .contains("begins at offset 1 of partition")
                    .then(|| reason.to_owned())
            });
            assert!(told.contains("--accept-truncated-log"), "{told}");
            let ready = client.get(&format!("{url}/actuator/health/readiness"));
            assert_eq!(ready.status, 503, "{}", ready.body);
        }
        let again = client.graphql(
            &tandem.accounts_url("/graphql"),
            CREATE,
            json!({"input": customer_input("c3", "Twice")}),
        );
        assert_eq!(
            again["errors"][0]["extensions"]["code"], "UNAVAILABLE",
            "{again:#}"
        );
    }
    let tandem = ground
        .builder()
        .env("TANDEM_ACCEPT_TRUNCATED_LOG", "true")
        .start();
    tandem.customer(&client, "c4");
}
