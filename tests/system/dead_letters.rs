//! Dead letters: a message that cannot be processed is parked with the later messages of its key, and an operator
//! resolves it.

mod away;
mod operating;

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};
use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem, TandemBuilder,
    checker::{CUSTOMER_TOPIC, LoggedEvent, whole_topic},
    graph::{PLACE, UPDATE, order_input},
    poll,
    site::Site,
};

const DEAD_LETTER_TOPIC: &str = "accounts.customer.change.DLT";
const CONSUMER: &str = "orders-replica";

fn kafka(tandem: &Tandem) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", tandem.bootstrap_servers());
    config
}

/// Sends a message to the customers' topic like any other producer could.
fn produce(tandem: &Tandem, key: &str, headers: &BTreeMap<String, String>, body: &str) {
    produce_all(tandem, Some(key), headers, &[body]);
}

/// Sends messages with these headers, with this key or without one.
fn produce_all(
    tandem: &Tandem,
    key: Option<&str>,
    headers: &BTreeMap<String, String>,
    bodies: &[&str],
) {
    let producer: ThreadedProducer<_> = kafka(tandem).create().unwrap();
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    for body in bodies {
        let record = BaseRecord::<str, str>::to(CUSTOMER_TOPIC)
            .payload(*body)
            .headers(headers.clone());
        let record = match key {
            Some(key) => record.key(key),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

fn rename(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    let name = json!({"name": {"firstName": "Ada", "lastName": last_name}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": id, "input": name}),
    );
}

fn held(tandem: &Tandem, client: &Client, id: &str) -> Value {
    let query = "query($id: ID!) { orderingCustomer(id: $id) { replica { revision } } }";
    client.data(&tandem.orders_url("/graphql"), query, json!({"id": id}))["orderingCustomer"]
        ["replica"]["revision"]
        .clone()
}

/// The output of `tandem dead-letters list`: each letter's name and its line.
fn list(tandem: &Tandem) -> Vec<(String, String)> {
    tandem
        .operated(&["dead-letters", "list"])
        .lines()
        .filter(|line| line.starts_with(CONSUMER))
        .map(|line| {
            (
                line.split_whitespace().next().unwrap().to_owned(),
                line.to_owned(),
            )
        })
        .collect()
}

/// The entries in the dead letter topic, only those of orders' replica: accounts' audit reads the same topic and has
/// its own.
fn record(tandem: &Tandem) -> Vec<LoggedEvent> {
    whole_topic(&kafka(tandem), DEAD_LETTER_TOPIC)
        .into_iter()
        .filter(|letter| letter.headers["dead-letter-consumer"] == CONSUMER)
        .collect()
}

/// A gauge of orders' replica.
fn gauge(tandem: &Tandem, client: &Client, name: &str) -> Option<u64> {
    let metrics = client.get(&tandem.orders_url("/actuator/prometheus")).body;
    let (series, label) = (format!("{name}{{"), format!("projection=\"{CONSUMER}\""));
    let line = metrics
        .lines()
        .find(|line| line.starts_with(&series) && line.contains(&label))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

fn event_of(tandem: &Tandem, id: &str) -> LoggedEvent {
    poll("the customer's event in the topic", || {
        whole_topic(&kafka(tandem), CUSTOMER_TOPIC)
            .into_iter()
            .find(|event| event.key == id)
    })
}

#[test]
fn a_poisoned_message_holds_back_its_key_alone_until_an_operator_puts_it_right() {
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    for id in ["poisoned", "ruled", "healthy"] {
        tandem.customer(&client, id);
    }
    // One message that cannot be parsed, and one that breaks a rule.
    let good = event_of(&tandem, "poisoned");
    produce(&tandem, "poisoned", &good.headers, "{ garbage");
    let ruled = event_of(&tandem, "ruled");
    let mut body = ruled.body.clone();
    body["revision"] = json!(0);
    produce(&tandem, "ruled", &ruled.headers, &body.to_string());
    poll("both are set aside", || {
        (list(&tandem).len() == 2).then_some(())
    });
    // Later messages of the same keys are parked behind them, in order. Other keys go on.
    rename(&tandem, &client, "poisoned", "Second");
    rename(&tandem, &client, "poisoned", "Third");
    rename(&tandem, &client, "ruled", "Second");
    rename(&tandem, &client, "healthy", "Second");
    tandem.replicated(&client, "healthy", 2);
    let letters = poll("what follows is parked", || {
        let letters = list(&tandem);
        (letters.len() == 5).then_some(letters)
    });
    assert_eq!(held(&tandem, &client, "poisoned"), 1);
    assert_eq!(held(&tandem, &client, "ruled"), 1);

    // The copies say why, from which place, and when.
    let copies = poll("all are copied", || {
        let mut copies = record(&tandem);
        // A copy whose outcome was not known in time is written again.
        let mut seen = std::collections::HashSet::new();
        copies.retain(|copy| {
            let place = ["dead-letter-partition", "dead-letter-offset"];
            seen.insert(place.map(|header| copy.headers[header].clone()))
        });
        (copies.len() == 5).then_some(copies)
    });
    let of = |key: &str| -> Vec<&LoggedEvent> {
        let mut found: Vec<_> = copies.iter().filter(|copy| copy.key == key).collect();
        found.sort_by_key(|copy| copy.headers["dead-letter-offset"].parse::<i64>().unwrap());
        found
    };
    let poisoned = of("poisoned");
    let original = whole_topic(&kafka(&tandem), CUSTOMER_TOPIC)
        .into_iter()
        .find(|event| event.payload == b"{ garbage")
        .unwrap();
    let headers = &poisoned[0].headers;
    assert_eq!(poisoned[0].payload, b"{ garbage");
    assert_eq!(headers["dead-letter-topic"], CUSTOMER_TOPIC);
    assert_eq!(
        headers["dead-letter-partition"],
        original.partition.to_string()
    );
    assert_eq!(headers["dead-letter-offset"], original.offset.to_string());
    assert!(
        headers["dead-letter-reason"].contains("body"),
        "{headers:#?}"
    );
    assert!(
        headers["dead-letter-at"].starts_with("20") && headers["dead-letter-at"].ends_with('Z')
    );
    assert_eq!(
        headers["ce_id"], good.headers["ce_id"],
        "the message's own headers are kept"
    );
    assert_eq!(poisoned[1].revision, 2);
    assert_eq!(poisoned[2].revision, 3);
    for follower in &poisoned[1..] {
        assert!(follower.headers["dead-letter-reason"].contains("an earlier message of this key"));
    }
    let reason = &of("ruled")[0].headers["dead-letter-reason"];
    assert!(reason.contains("revision"), "{reason}");

    // The letter is shown, and refused again; nothing behind it is processed either.
    let first = format!(
        "{CONSUMER}/{CUSTOMER_TOPIC}/{}/{}",
        original.partition, original.offset
    );
    assert!(
        letters.iter().any(|(name, _)| *name == first),
        "{letters:#?}"
    );
    let shown = tandem.operated(&["dead-letters", "show", &first]);
    assert!(
        shown.contains("key: poisoned") && shown.contains("{ garbage"),
        "{shown}"
    );
    let refused = tandem.operate(&["dead-letters", "retry"]);
    assert!(!refused.succeeded, "{refused:#?}");
    assert!(
        refused.output.contains("key poisoned is still refused"),
        "{refused:#?}"
    );
    assert_eq!(list(&tandem).len(), 5);
    let unknown = tandem.operate(&[
        "dead-letters",
        "discard",
        &format!("{CONSUMER}/{CUSTOMER_TOPIC}/0/9999"),
    ]);
    assert!(
        !unknown.succeeded && unknown.errors.contains("no such dead letter"),
        "{unknown:#?}"
    );

    // After the poisoned one is discarded, the others are processed in order, and the key flows again.
    tandem.operated(&["dead-letters", "discard", &first]);
    let retried = tandem.operated(&["dead-letters", "retry", "--key", "poisoned"]);
    assert!(retried.contains("2 retried"), "{retried}");
    tandem.replicated(&client, "poisoned", 3);
    assert_eq!(held(&tandem, &client, "ruled"), 1);
    rename(&tandem, &client, "poisoned", "Fourth");
    tandem.replicated(&client, "poisoned", 4);
    assert_eq!(list(&tandem).len(), 2);

    // The operator's actions are recorded in order.
    let done: Vec<(String, String)> = record(&tandem)
        .into_iter()
        .filter(|entry| entry.headers.contains_key("dead-letter-resolution"))
        .map(|entry| {
            (
                entry.headers["dead-letter-resolution"].clone(),
                entry.headers["dead-letter-offset"].clone(),
            )
        })
        .collect();
    let wanted: Vec<(String, String)> = ["discarded", "retried", "retried"]
        .into_iter()
        .zip(&poisoned)
        .map(|(what, copy)| (what.to_owned(), copy.headers["dead-letter-offset"].clone()))
        .collect();
    assert_eq!(done, wanted);
}

#[test]
fn dead_letters_outlive_a_restart_and_hold_their_key_back_still() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new();
    {
        let tandem = Tandem::builder()
            .accepts_unsigned()
            .data_dir(directory.path())
            .start();
        tandem.customer(&client, "held");
        produce(&tandem, "held", &event_of(&tandem, "held").headers, "[]");
        poll("it is set aside", || {
            (list(&tandem).len() == 1).then_some(())
        });
    }
    let tandem = Tandem::builder()
        .accepts_unsigned()
        .data_dir(directory.path())
        .start();
    // The metric exists before any further message arrives.
    for name in ["dead_letters", "dead_letter_keys"] {
        poll(&format!("{name} is shown again"), || {
            (gauge(&tandem, &client, name) == Some(1)).then_some(())
        });
    }
    rename(&tandem, &client, "held", "Second");
    let letters = poll("what follows is parked", || {
        let letters = list(&tandem);
        (letters.len() == 2).then_some(letters)
    });
    assert_eq!(held(&tandem, &client, "held"), 1);
    tandem.operated(&["dead-letters", "discard", &letters[0].0]);
    tandem.operated(&["dead-letters", "retry"]);
    tandem.replicated(&client, "held", 2);
    assert!(
        tandem
            .operated(&["dead-letters", "list"])
            .contains("no dead letters")
    );
}

/// One letter that cannot be copied to its topic, on this system.
fn a_letter_that_cannot_be_copied(tandem: &Tandem) {
    let client = Client::new();
    for id in ["huge", "healthy"] {
        tandem.customer(&client, id);
    }
    let good = event_of(tandem, "huge");
    // As large as a message may be. With the headers that say why it was parked, the copy is larger.
    let mut body = good.body.clone();
    body["revision"] = json!(2);
    body["padding"] = json!("x".repeat(990_000 - good.payload.len()));
    let mut broken = body.to_string();
    broken.truncate(broken.len() - 1);
    produce(tandem, "huge", &good.headers, &broken);
    let letters = poll("it is set aside", || {
        let letters = list(tandem);
        (letters.len() == 1).then_some(letters)
    });
    // Other keys go on, and so does this key after the letter was handled.
    rename(tandem, &client, "healthy", "Second");
    tandem.replicated(&client, "healthy", 2);
    let copy = poll("what there can be of it is in the topic", || {
        record(tandem).pop()
    });
    assert_eq!(copy.headers["dead-letter-cut"], "true");
    let shown = tandem.operated(&["dead-letters", "show", &letters[0].0]);
    assert!(shown.contains("key: huge") && shown.contains("its beginning"));
    assert!(shown.len() < 500_000, "{} bytes", shown.len());
    let health = client.get(&tandem.orders_url("/actuator/health")).json();
    let replica = &health["components"]["replica"]["details"];
    assert_eq!(replica["deadLetters"], json!(1), "{health:#}");
    assert!(replica["lag"].as_i64() >= Some(1), "{health:#}");
    // The retry uses the complete message from its topic, and the letter is still the same.
    let refused = tandem.operate(&["dead-letters", "retry"]);
    assert!(
        !refused.succeeded && refused.output.contains("huge"),
        "{refused:#?}"
    );
    tandem.operated(&["dead-letters", "discard", &letters[0].0]);
    // A message that arrives now, however soon, is not parked behind a letter that is gone.
    rename(tandem, &client, "huge", "Third");
    poll("the key flows again", || {
        (held(tandem, &client, "huge").as_i64() > Some(1)).then_some(())
    });
    assert!(list(tandem).is_empty());
}

#[test]
fn a_dead_letter_that_cannot_be_copied_holds_back_its_key_alone() {
    a_letter_that_cannot_be_copied(&Tandem::builder().accepts_unsigned().start());
}

#[test]
fn a_dead_letter_that_cannot_be_copied_holds_back_its_key_alone_on_real_servers() {
    require!(mongod, kafka);
    a_letter_that_cannot_be_copied(
        &Site::on_real_servers_with(TandemBuilder::accepts_unsigned).tandem,
    );
}

#[test]
fn messages_without_a_key_stand_alone_and_valid_ones_are_taken_by_their_subject() {
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    tandem.customer(&client, "keyless");
    let good = event_of(&tandem, "keyless");
    produce_all(&tandem, None, &good.headers, &["{ garbage", "[]", "{}"]);
    poll("all are set aside", || {
        (list(&tandem).len() == 3).then_some(())
    });
    // In plain, with a revision that accounts did not make, like another producer would write it.
    let mut body = good.body.clone();
    body.as_object_mut().unwrap().remove("sealed");
    body["revision"] = json!(7);
    body["name"] = json!({"firstName": "Ada", "lastName": "Keyless"});
    body["contact"] = json!({"primaryPhone": "1", "email": "ada@example.org"});
    body["addresses"] = json!([]);
    body["creditCards"] = json!([]);
    produce_all(&tandem, None, &good.headers, &[&body.to_string()]);
    tandem.replicated(&client, "keyless", 7);
    // Each letter is resolved separately.
    let letters = list(&tandem);
    tandem.operated(&["dead-letters", "discard", &letters[1].0]);
    assert_eq!(list(&tandem).len(), 2);
}

#[test]
fn an_erasure_passes_a_parked_key_and_takes_what_is_parked_away() {
    let tandem = Tandem::builder().accepts_unsigned().start();
    let client = Client::new();
    tandem.customer(&client, "person");
    produce(
        &tandem,
        "person",
        &event_of(&tandem, "person").headers,
        "{ garbage of Ada",
    );
    poll("it is set aside", || {
        (list(&tandem).len() == 1).then_some(())
    });
    rename(&tandem, &client, "person", "Second");
    poll("what follows is parked", || {
        (list(&tandem).len() == 2).then_some(())
    });
    let erased = client.data(
        &tandem.accounts_url("/graphql"),
        "mutation { eraseCustomer(id: \"person\") { id } }",
        json!({}),
    );
    assert_eq!(erased["eraseCustomer"]["id"], json!("person"));
    poll("orders does not know the person any more", || {
        let query = "query($id: ID!) { orderingCustomer(id: $id) { id } }";
        let url = tandem.orders_url("/graphql");
        let known = client.data(&url, query, json!({"id": "person"}));
        known["orderingCustomer"].is_null().then_some(())
    });
    poll("nothing of the person is parked", || {
        list(&tandem).is_empty().then_some(())
    });
    let refused = client.graphql(
        &tandem.orders_url("/graphql"),
        PLACE,
        json!({"input": order_input("person")}),
    );
    assert_eq!(
        refused["errors"][0]["extensions"]["code"],
        "CUSTOMER_UNKNOWN"
    );
}
