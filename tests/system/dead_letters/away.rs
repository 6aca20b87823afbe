//! A message is not parked because a server does not answer: the projection waits for the server.

use serde_json::json;
use tandem_backends::{Mongo, require};
use tokio::runtime::Runtime;

use super::{kafka, record, rename};
use crate::support::{
    Client, Signal, Tandem,
    checker::{CUSTOMER_TOPIC, whole_topic},
    graph::UPDATE,
    poll, signal,
};

#[test]
fn a_store_that_is_away_is_waited_for_and_makes_no_dead_letter() {
    require!(mongod);
    let runtime = Runtime::new().unwrap();
    let mongo = runtime.block_on(Mongo::start(1)).unwrap();
    let tandem = Tandem::builder()
        .accepts_unsigned()
        .flag("--mongodb-uri")
        .flag(mongo.uri())
        .start();
    let client = Client::new();
    tandem.customer(&client, "waited-for");
    // Changes that orders has not read when its store goes down.
    let orders = tandem.child("orders").unwrap();
    signal(orders, Signal::STOP);
    for n in 2..=5 {
        let name = json!({"name": {"firstName": "Ada", "lastName": format!("Number{n}")}});
        client.data(
            &tandem.accounts_url("/graphql"),
            UPDATE,
            json!({"id": "waited-for", "input": name}),
        );
    }
    poll("all changes are in the topic", || {
        let events = whole_topic(&kafka(&tandem), CUSTOMER_TOPIC);
        (events
            .iter()
            .filter(|event| event.key == "waited-for")
            .count()
            >= 5)
            .then_some(())
    });
    mongo.kill(0).unwrap();
    signal(orders, Signal::CONT);
    poll("the replica waits for its store", || {
        let health = client.get(&tandem.orders_url("/actuator/health")).json();
        health["components"]["replica"]["details"]
            .to_string()
            .contains("waits for the store")
            .then_some(())
    });
    runtime.block_on(mongo.start_again(0)).unwrap();
    tandem.replicated(&client, "waited-for", 5);
    assert_eq!(tandem.child("orders"), Some(orders), "orders was restarted");
    assert_eq!(record(&tandem).len(), 0);
    assert!(
        tandem
            .operated(&["dead-letters", "list"])
            .contains("no dead letters")
    );
    drop(runtime);
}

#[test]
fn a_kafka_that_is_away_is_waited_for_and_makes_no_dead_letter() {
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    tandem.customer(&client, "kafka-away");
    let broker = tandem.child("broker").unwrap();
    signal(broker, Signal::STOP);
    for n in 2..=4 {
        rename(&tandem, &client, "kafka-away", &format!("Number{n}"));
    }
    signal(broker, Signal::CONT);
    tandem.replicated(&client, "kafka-away", 4);
    signal(broker, Signal::KILL);
    rename(&tandem, &client, "kafka-away", "Number5");
    tandem.replicated(&client, "kafka-away", 5);
    assert_eq!(record(&tandem).len(), 0);
    assert!(
        tandem
            .operated(&["dead-letters", "list"])
            .contains("no dead letters")
    );
}
