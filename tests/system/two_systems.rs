//! Two systems on one Kafka by mistake, and a wrong sealing key: both are refused with a sentence, and the data is not
//! touched.

use std::time::Duration;

use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem,
    graph::{CREATE, UPDATE, customer_input},
    ground::{CUSTOMERS, Ground, KEYS, Log, Raw},
    poll,
};

/// A sealing key, in base64, that no system in these tests has.
const WRONG: &str = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=";
const NAMES: &str = "query($id: ID!) { customer(id: $id) { name { lastName } } }";

fn last_name(tandem: &Tandem, client: &Client, id: &str) -> Value {
    let url = tandem.accounts_url("/graphql");
    client.data(&url, NAMES, json!({"id": id}))["customer"]["name"]["lastName"].clone()
}

/// Starts a system that must not start. Returns its message.
#[track_caller]
fn refused(mut tandem: Tandem) -> String {
    let status = tandem.process.wait_for_end(Duration::from_secs(120));
    assert!(!status.success());
    let (output, errors) = tandem.process.all_output();
    output + &errors
}

#[test]
fn a_second_system_on_the_same_topics_is_refused_and_lives_beside_it_with_a_prefix() {
    let ground = Ground::embedded();
    let first = ground.start();
    let kafka = first.bootstrap_servers();
    two_systems(&first, &|| Tandem::builder().kafka(kafka.clone()));
}

#[test]
fn a_second_system_on_the_same_topics_is_refused_on_real_servers() {
    require!(mongod, kafka);
    let ground = Ground::on_real_servers();
    let first = ground.start();
    let kafka = first.bootstrap_servers();
    two_systems(&first, &|| Tandem::builder().kafka(kafka.clone()));
}

#[test]
fn a_second_store_of_a_running_service_is_refused_though_it_has_the_right_key() {
    second_store(&Ground::embedded());
}

#[test]
fn a_second_store_of_a_running_service_is_refused_on_real_servers() {
    require!(mongod, kafka);
    second_store(&Ground::on_real_servers());
}

/// A second system with a copied configuration.
fn second_store(ground: &Ground) {
    let first = ground.start();
    let key = std::fs::read_to_string(first.data_dir().join("sealing.key")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("sealing.key"), key).unwrap();
    let said = refused(
        Tandem::builder()
            .data_dir(directory.path())
            .kafka(first.bootstrap_servers())
            .spawn(),
    );
    assert!(said.contains("is running on another store"), "{said}");
}

fn two_systems(first: &Tandem, second: &dyn Fn() -> super::support::TandemBuilder) {
    let client = Client::new();
    first.customer(&client, "1");
    first.published(&client);
    let before = Log::of(first).read(CUSTOMERS);
    let system = before[0]
        .header("ce_tandemsystem")
        .expect("events name their system");

    let said = refused(second().spawn());
    assert!(said.contains("--topic-prefix"), "{said}");
    assert_eq!(Log::of(first).read(CUSTOMERS), before);

    let second = second().flag("--topic-prefix").flag("second.").start();
    let input = customer_input("1", "Other");
    client.data(
        &second.gateway_url("/graphql"),
        CREATE,
        json!({"input": input}),
    );
    second.replicated(&client, "1", 1);
    assert_eq!(last_name(first, &client, "1"), "Lovelace");
    assert_eq!(last_name(&second, &client, "1"), "Other");
    let log = Log::of(first);
    assert_eq!(log.read(CUSTOMERS).len(), 1);
    let theirs = log.read(&format!("second.{CUSTOMERS}"));
    assert_eq!(theirs.len(), 1);
    assert_ne!(theirs[0].header("ce_tandemsystem"), Some(system.clone()));

    // An event of the other system on one's own topic is refused with a message, and never applied.
    let mut foreign = theirs[0].clone();
    let body = String::from_utf8(foreign.payload.take().unwrap()).unwrap();
    foreign.payload = Some(
        body.replace("\"revision\":1", "\"revision\":7")
            .into_bytes(),
    );
    log.write(CUSTOMERS, &[foreign]);
    for service in ["accounts", "orders"] {
        poll("the foreign event is a dead letter", || {
            let told = first.operated(&["dead-letters", "list", "--service", service]);
            told.contains("of another system").then_some(())
        });
        let told = first.operated(&["rebuild", service]);
        assert!(told.contains(" 0 removed, 0 set back"), "{told}");
    }
    assert_eq!(last_name(first, &client, "1"), "Lovelace");
    first.replicated(&client, "1", 1);
    // It does not block the system's own events of the same customer.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    let gateway = first.gateway_url("/graphql");
    client.data(&gateway, UPDATE, json!({"id": "1", "input": name}));
    first.replicated(&client, "1", 2);
}

#[test]
fn topics_from_before_they_had_a_system_are_taken_over_once() {
    old_topics(&Ground::embedded(), Ground::embedded);
}

#[test]
fn topics_from_before_they_had_a_system_are_taken_over_once_on_real_servers() {
    require!(mongod, kafka);
    old_topics(&Ground::on_real_servers(), Ground::on_real_servers);
}

fn old_topics(first: &Ground, second: impl Fn() -> Ground) {
    let client = Client::new();
    let (customers, keys) = {
        let tandem = first.start();
        tandem.customer(&client, "1");
        tandem.published(&client);
        let log = Log::of(&tandem);
        (log.read(CUSTOMERS), log.read(KEYS))
    };
    let second = second();
    {
        let log = second.log();
        let customers = customers.into_iter().map(Raw::without_system);
        log.put(CUSTOMERS, &customers.collect::<Vec<_>>());
        let keys = keys.into_iter().filter(|raw| !raw.is_claim());
        log.put(KEYS, &keys.collect::<Vec<_>>());
    }
    let wrong = refused(second.spawn_with_key(WRONG));
    assert!(
        wrong.contains("do not open with the sealing key"),
        "{wrong}"
    );
    let second = second.with_key_of(first);
    for service in ["accounts", "orders"] {
        second.forget_store(service);
    }
    let system = |tandem: &Tandem| {
        let mut claim = Log::of(tandem).read(KEYS).into_iter();
        let claim = claim.rfind(|raw| raw.key == "!claim/accounts").unwrap();
        let claim: Value = serde_json::from_slice(&claim.payload.unwrap()).unwrap();
        claim["system"].as_str().unwrap().to_owned()
    };
    let named = {
        let tandem = second.start();
        tandem.replicated(&client, "1", 1);
        tandem.customer(&client, "2");
        tandem.published(&client);
        let newest = Log::of(&tandem).read(CUSTOMERS);
        let newest = newest.iter().find(|raw| raw.key == "2").unwrap();
        assert_eq!(newest.header("ce_tandemsystem"), Some(system(&tandem)));
        system(&tandem)
    };
    let tandem = second.start();
    assert_eq!(last_name(&tandem, &client, "1"), "Lovelace");
    assert_eq!(system(&tandem), named);
}

#[test]
fn a_wrong_sealing_key_is_refused_by_the_store_and_by_the_topics() {
    wrong_key(&Ground::embedded());
}

#[test]
fn a_wrong_sealing_key_is_refused_on_real_servers() {
    require!(mongod, kafka);
    wrong_key(&Ground::on_real_servers());
}

fn wrong_key(ground: &Ground) {
    let client = Client::new();
    let right = {
        let tandem = ground.start();
        tandem.customer(&client, "1");
        tandem.published(&client);
        std::fs::read_to_string(tandem.data_dir().join("sealing.key")).unwrap()
    };
    // The store remembers its key.
    let said = refused(ground.spawn_with_key(WRONG));
    assert!(
        said.contains("this store was used with the sealing key"),
        "{said}"
    );
    // So do the topics, when the stores are new.
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let said = refused(ground.spawn_with_key(WRONG));
    assert!(said.contains("was given another one"), "{said}");
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let tandem = {
        ground.write_key(&right);
        ground.start()
    };
    tandem.replicated(&client, "1", 1);
    assert_eq!(last_name(&tandem, &client, "1"), "Lovelace");
    let log = Log::of(&tandem);
    assert!(
        log.read(KEYS)
            .iter()
            .any(|raw| raw.key == "!claim/accounts")
    );
    assert!(log.read(KEYS).iter().all(|raw| {
        let body = raw.payload.clone().unwrap_or_default();
        !String::from_utf8_lossy(&body).contains(right.trim())
    }));
}
