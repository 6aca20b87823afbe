//! The operator's page and its requests through the gateway: authorized operators can use it, and nobody else.

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use serde_json::{Value, json};

use super::support::{
    Client, Tandem,
    checker::{CUSTOMER_TOPIC, whole_topic},
    graph::UPDATE,
    ground::Log,
    poll,
};

#[path = "operations/page.rs"]
mod page;
#[path = "operations/routes.rs"]
mod routes;

const SIGNATURE: &str = "ce_tandemsignature";

/// The address of a route that the gateway passes on.
fn route(tandem: &Tandem, service: &str, path: &str) -> String {
    tandem.gateway_url(&format!("/operations/{service}/admin/{path}"))
}

fn kafka(tandem: &Tandem) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", tandem.bootstrap_servers());
    config
}

/// Writes a message with this customer's key that cannot be processed, like any other producer could.
fn poison(tandem: &Tandem, id: &str, body: &str) {
    let headers: BTreeMap<String, String> = poll("the customer's event in the topic", || {
        let events = whole_topic(&kafka(tandem), CUSTOMER_TOPIC);
        let found = events.into_iter().find(|event| event.key == id);
        found.map(|event| event.headers)
    });
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    let producer: ThreadedProducer<_> = kafka(tandem).create().unwrap();
    let record = BaseRecord::<str, str>::to(CUSTOMER_TOPIC)
        .payload(body)
        .key(id)
        .headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(Duration::from_secs(20)).unwrap();
}

/// Publishes an event of a customer whose data key is on no topic: the first event of another customer under this id,
/// unsigned.
fn keyless(tandem: &Tandem, like: &str, id: &str) {
    let log = Log::of(tandem);
    let mut event = poll("the customer's event in the topic", || {
        let mut events = log.read(CUSTOMER_TOPIC).into_iter();
        events.find(|event| event.key == like)
    });
    let mut body: Value = serde_json::from_slice(event.payload.as_deref().unwrap()).unwrap();
    body["id"] = json!(id);
    event.payload = Some(body.to_string().into_bytes());
    event.key = id.to_owned();
    event.headers.retain(|(name, _)| name != SIGNATURE);
    for (name, value) in &mut event.headers {
        match name.as_str() {
            "ce_id" => *value = uuid::Uuid::now_v7().to_string().into_bytes(),
            "ce_subject" => *value = id.as_bytes().to_vec(),
            _ => {}
        }
    }
    log.write(CUSTOMER_TOPIC, &[event]);
}

fn rename(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    let name = json!({"name": {"firstName": "Ada", "lastName": last_name}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": id, "input": name}),
    );
}

/// The dead letters of a service, once there are this many.
fn letters(tandem: &Tandem, client: &Client, service: &str, count: usize) -> Vec<Value> {
    let url = route(tandem, service, "dead-letters");
    poll(&format!("{count} dead letters of {service}"), || {
        let answer = client.get(&url);
        assert_eq!(answer.status, 200);
        let letters = answer.json()["letters"].as_array().unwrap().clone();
        (letters.len() == count).then_some(letters)
    })
}
