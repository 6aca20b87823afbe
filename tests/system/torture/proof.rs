//! Proves that the checker finds a loss: the program is told to do something wrong, and the checker must find it.

use std::{collections::HashMap, time::Duration};

use serde_json::json;

use super::{ended_as_told, nemesis::tell, verdict};
use crate::support::{
    Client, Signal, Tandem,
    checker::CUSTOMER_TOPIC,
    graph::{CREATE, UPDATE, customer_input},
    poll, signal,
    workload::History,
};

#[test]
fn the_checker_finds_a_relay_that_clears_before_it_publishes() {
    let mut tandem = Tandem::builder()
        .flag("--no-restart")
        .env("TANDEM_FAULT", "clear-before-publish")
        .start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    let accounts = tandem.accounts_url("/graphql");
    // The broker is down when the commands are acknowledged, and accounts is killed before it is back. The clearing
    // becomes durable with the next command.
    let (broker, killed) = (
        tandem.child("broker").unwrap(),
        tandem.child("accounts").unwrap(),
    );
    signal(broker, Signal::KILL);
    let mut history = History {
        customers: HashMap::from([("kept".to_owned(), 1)]),
        acknowledged: 1,
        ..History::default()
    };
    for number in 0..30 {
        let id = format!("lost-{number:02}");
        let input = json!({"input": customer_input(&id, "Lovelace")});
        client.data(&accounts, CREATE, input);
        history.customers.insert(id, 1);
        history.acknowledged += 1;
    }
    signal(killed, Signal::KILL);
    tandem.process.signal(Signal::TERM);
    tandem.process.wait_for_end(Duration::from_secs(20));
    tandem.start_again();
    let fault = verdict(&tandem, &history, Duration::from_secs(5)).unwrap_err();
    assert!(
        fault.contains("LOST: lost-00 is stored at revision 1") && fault.contains(CUSTOMER_TOPIC),
        "{fault}"
    );
}

#[test]
fn the_checker_finds_a_projection_that_commits_before_it_writes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("instant");
    let tandem = Tandem::builder()
        .env("TANDEM_FAULT", "commit-before-write")
        .env("TANDEM_FAULT_FILE", file.to_str().unwrap())
        .start();
    let client = Client::new();
    tandem.customer(&client, "kept");
    tell(&file, "after-early-commit@orders-replica");
    let lost = json!({"input": customer_input("lost", "Lovelace")});
    client.data(&tandem.accounts_url("/graphql"), CREATE, lost);
    ended_as_told(&file);
    // Publishing continues after what was lost.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    let variables = json!({"id": "kept", "input": name});
    client.data(&tandem.accounts_url("/graphql"), UPDATE, variables);
    poll("the replica goes on", || {
        tandem.replicated(&client, "kept", 2);
        Some(())
    });
    let history = History {
        customers: HashMap::from([("kept".to_owned(), 2), ("lost".to_owned(), 1)]),
        acknowledged: 3,
        ..History::default()
    };
    let fault = verdict(&tandem, &history, Duration::from_secs(5)).unwrap_err();
    assert!(
        fault.contains("LOST: lost is stored at revision 1, the replica holds None"),
        "{fault}"
    );
}
