//! A full disk: the service reports that its store is unavailable, and recovers by itself when there is space again.
//!
//! The test limits the size of the process's files instead of filling a disk. The limit can be lifted, and needs no
//! separate file system.

use std::{process::Command, time::Duration};

use serde_json::{Value, json};

use super::support::{
    Client, Signal, Tandem,
    graph::{CREATE, customer_input},
    limit_files, poll,
};

/// How long shutdown may take.
const END: Duration = Duration::from_secs(20);

/// Limits the file size of a process, in bytes or `unlimited`.
#[track_caller]
fn limit(process: u32, bytes: &str) {
    assert!(limit_files(process, bytes));
}

/// Whether this machine can set the limit.
fn can_limit() -> bool {
    if Command::new("prlimit").arg("--version").output().is_ok() {
        return true;
    }
    println!("LEFT OUT: a disk that is full needs prlimit, of util-linux");
    assert!(std::env::var_os("TANDEM_REQUIRE_BACKENDS").is_none());
    false
}

/// A system whose processes can be limited.
fn start() -> Tandem {
    Tandem::builder().surviving_full_disks().start()
}

/// Creates a customer with much data.
fn create(tandem: &Tandem, client: &Client, id: &str) -> Value {
    let mut input = customer_input(id, "Lovelace");
    let address = input["addresses"][0].clone();
    input["addresses"] = json!(vec![address; 60]);
    client.graphql(
        &tandem.accounts_url("/graphql"),
        CREATE,
        json!({"input": input}),
    )
}

#[track_caller]
fn pid(tandem: &Tandem, service: &str) -> u32 {
    tandem.child(service).expect("it was started")
}

#[test]
fn a_broker_without_room_loses_nothing_and_comes_back_by_itself() {
    if !can_limit() {
        return;
    }
    let mut system = start();
    let client = Client::new();
    let services = ["broker", "accounts", "orders"];
    let pids = services.map(|service| pid(&system, service));
    let replicated = |system: &Tandem, id: &str| {
        poll("the customer is in the replica", || {
            let read = client.graphql(
                &system.orders_url("/graphql"),
                "query($id: ID!) { orderingCustomer(id: $id) { id } }",
                json!({"id": id}),
            );
            (read["data"]["orderingCustomer"]["id"] == json!(id)).then_some(())
        });
    };
    assert!(create(&system, &client, "c0")["errors"].is_null());
    replicated(&system, "c0");
    // Nothing fits any more: the outbox grows, and health reports it.
    limit(pids[0], "1");
    for number in 1..20 {
        assert!(create(&system, &client, &format!("c{number}"))["errors"].is_null());
    }
    let outbox = |pending: bool| {
        poll("what is said of the outbox", || {
            let metrics = client.try_get(&system.accounts_url("/actuator/prometheus"))?;
            let line = metrics
                .body
                .lines()
                .find(|line| line.starts_with("outbox_pending_events{"))?;
            (line.ends_with(" 0") != pending).then_some(())
        });
    };
    outbox(true);
    limit(pids[0], "unlimited");
    outbox(false);
    for number in 1..20 {
        replicated(&system, &format!("c{number}"));
    }
    // All of them are full at once, and then have space again.
    for pid in pids {
        limit(pid, "1");
    }
    poll("the store says that it is away", || {
        let refused = create(&system, &client, "refused");
        (!refused["errors"].is_null()).then_some(())
    });
    for pid in pids {
        limit(pid, "unlimited");
    }
    poll("everything works again", || {
        let created = create(&system, &client, "again");
        let is_there = created["errors"][0]["extensions"]["code"] == json!("ALREADY_EXISTS");
        (created["errors"].is_null() || is_there).then_some(())
    });
    replicated(&system, "again");
    assert_eq!(
        services.map(|service| pid(&system, service)),
        pids,
        "restarted"
    );
    // Full again: all processes still end in time.
    for pid in pids {
        limit(pid, "1");
    }
    create(&system, &client, "refused too");
    system.process.signal(Signal::INT);
    system.process.wait_for_end(END);
}

#[test]
fn a_store_without_room_is_away_and_comes_back_by_itself() {
    if !can_limit() {
        return;
    }
    let mut system = start();
    let process = pid(&system, "accounts");
    let client = Client::new();
    let url = system.accounts_url("");
    let create = |number: usize| create(&system, &client, &format!("c{number}"));
    assert!(create(0)["errors"].is_null());
    let size = std::fs::metadata(system.data_dir().join("accounts.redb"))
        .unwrap()
        .len();
    limit(process, &size.to_string());
    let refused = (1..20_000)
        .map(create)
        .find(|answer| !answer["errors"].is_null());
    let refused = refused.expect("the file has a limit");
    assert_eq!(
        refused["errors"][0]["extensions"]["code"], "UNAVAILABLE",
        "{refused:#}"
    );
    // The message depends on what is full here: the disk, or what the process may use of it.
    let message = refused["errors"][0]["message"].as_str().unwrap();
    assert!(
        message.contains("its file may not become larger"),
        "{message}"
    );
    assert!(
        !message.contains('/') && !message.contains(".redb"),
        "{message}"
    );
    poll("health says why nothing can be written", || {
        let health = client.try_get(&format!("{url}/actuator/health"))?;
        let store = health.json()["components"]["store"].clone();
        let reason = store["details"]["reason"].as_str()?;
        assert!(
            reason.contains("its file may not become larger"),
            "{reason}"
        );
        (store["status"] == "DEGRADED").then_some(())
    });
    // The service's own records are small and may still fit. That must not make the store healthy for clients' writes.
    for _ in 0..20 {
        let health = client.get(&format!("{url}/actuator/health")).json();
        assert_ne!(health["components"]["store"]["status"], "UP", "{health:#}");
    }
    // The refused command may have been large, and a smaller one may still fit. Now nothing fits.
    limit(process, "1");
    poll("the service says that its store is away", || {
        assert!(!create(20_000)["errors"].is_null(), "nothing fits");
        let health = client.try_get(&format!("{url}/actuator/health/readiness"))?;
        (health.status == 503).then_some(())
    });
    limit(process, "unlimited");
    poll("the store is there again", || {
        create(20_001)["errors"].is_null().then_some(())
    });
    poll("health has nothing more to say of it", || {
        let health = client.try_get(&format!("{url}/actuator/health"))?;
        (health.json()["components"]["store"]["status"] == "UP").then_some(())
    });
    assert_eq!(
        pid(&system, "accounts"),
        process,
        "the service was restarted"
    );
    let read = client.data(
        &format!("{url}/graphql"),
        "{ customer(id: \"c0\") { revision } }",
        json!({}),
    );
    assert_eq!(read["customer"]["revision"], json!(1));
    // Full again: it still ends in time.
    limit(process, &size.to_string());
    system.process.signal(Signal::TERM);
    system.process.wait_for_end(END);
}
