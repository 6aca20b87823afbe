//! Logs as they occur on Kafka: offsets with gaps, added partitions. Nothing may wait for a message that never comes.

mod mirror;

use std::{path::Path, time::Duration};

use mirror::{End, Log, Transaction};
use serde_json::{Value, json};
use tandem_backends::require;

use super::support::{
    Client, Tandem, Transport,
    checker::{CUSTOMER_TOPIC, LoggedEvent, ORDER_TOPIC, whole_topic},
    graph::{CREATE, ORDERING_CUSTOMER, UPDATE, customer_input},
    poll, poll_for,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Within this time the relay, every projection and every live reader notice new partitions (`docs/production.md`),
/// plus some time for a machine on which other tests run.
const NOTICED: Duration = Duration::from_secs(10 + 5);

/// Removes both stores. Everything else in the directory stays, such as the sealing key.
fn forget(directory: &Path) {
    for service in ["accounts", "orders"] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "redb")
                && path.file_stem().is_some_and(|stem| stem == service)
            {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

fn create(tandem: &Tandem, client: &Client, id: &str) {
    client.data(
        &tandem.accounts_url("/graphql"),
        CREATE,
        json!({"input": customer_input(id, "Lovelace")}),
    );
}

fn health(client: &Client, url: &str) -> Value {
    client.get(url).json()
}

#[test]
fn a_log_that_ends_in_transaction_markers_is_read_to_its_end_by_everybody() {
    require!(kafka);
    let log = Log::start();
    let client = Client::new();
    let tandem = log.tandem();
    tandem.customer(&client, "first");
    let order = tandem.order(&client, "first");
    tandem.audited(&client, "order", &order, 1);
    // Every event is repeated in a transaction, which changes nothing, and some in one that is aborted. After that each
    // partition ends in a marker.
    for topic in [CUSTOMER_TOPIC, ORDER_TOPIC, "accounts.customer.key"] {
        let events = whole_topic(&log.client(), topic);
        let everywhere: Vec<LoggedEvent> = (0..if topic.ends_with("key") { 1 } else { 6 })
            .map(|partition| LoggedEvent {
                partition,
                ..events[0].clone()
            })
            .collect();
        log.mirror(topic, &everywhere, End::Committed);
        log.mirror(topic, &everywhere, End::Aborted);
    }
    // Live readers and the projections go on.
    let updates = client.subscribe(
        Transport::WebSocket,
        &tandem.orders_url("/graphql/ws"),
        "subscription { orderUpdated { cursor order { id } } }",
        json!({}),
    );
    tandem.customer(&client, "second");
    let other = tandem.order(&client, "second");
    assert_eq!(
        updates.next()["data"]["orderUpdated"]["order"]["id"],
        json!(other)
    );
    for topic in [CUSTOMER_TOPIC, ORDER_TOPIC, "accounts.customer.key"] {
        let events = whole_topic(&log.client(), topic);
        log.mirror(topic, &events[..1], End::Aborted);
    }
    // Nothing is left to read, and the reported lag is zero.
    poll("the replica is not behind", || {
        let told = health(&client, &tandem.orders_url("/actuator/health"));
        (told["components"]["replica"]["details"]["lag"] == json!(0)).then_some(())
    });
    // A rebuild reaches the end and finds everything.
    for service in ["accounts", "orders"] {
        let said = tandem.operated(&["rebuild", service]);
        assert!(said.contains("0 removed"), "{said}");
    }
    assert_eq!(
        tandem.operated(&["dead-letters", "list"]).trim(),
        "no dead letters"
    );
}

#[test]
fn what_lies_behind_an_open_transaction_is_never_taken_for_missing() {
    require!(kafka);
    let log = Log::start();
    let client = Client::new();
    let directory = tempfile::tempdir().unwrap();
    let spawn = || {
        Tandem::builder()
            .data_dir(directory.path())
            .kafka(log.kafka.bootstrap())
            .spawn()
    };
    let mut tandem = spawn();
    tandem.wait_until_ready();
    tandem.customer(&client, "before");
    tandem.published(&client);
    let events = whole_topic(&log.client(), CUSTOMER_TOPIC);
    let everywhere: Vec<LoggedEvent> = (0..6)
        .map(|partition| LoggedEvent {
            partition,
            ..events[0].clone()
        })
        .collect();
    let open = log.open_mirror(CUSTOMER_TOPIC, &everywhere);
    // The event is in the log, but hidden from readers.
    create(&tandem, &client, "behind");
    tandem.published(&client);
    let open_transaction = "a transaction of another producer is open";
    let rebuild = tandem.operate(&["rebuild", "accounts"]);
    let told = rebuild.output + &rebuild.errors;
    assert!(
        !rebuild.succeeded && told.contains(open_transaction),
        "{told}"
    );
    // A new store on this log accepts no commands before it can read all of the log.
    drop(tandem);
    forget(directory.path());
    let mut tandem = spawn();
    let url = tandem.accounts_url("/actuator/health");
    poll_for(LIMIT, "accounts says what it waits for", || {
        let told = client.try_get(&url)?.body;
        told.contains(open_transaction).then_some(())
    });
    open.end(End::Committed);
    tandem.wait_until_ready();
    tandem.replicated(&client, "behind", 1);
    let said = tandem.operated(&["rebuild", "accounts"]);
    assert!(said.contains("0 removed"), "{said}");
}

#[test]
fn the_audit_and_the_doctor_say_what_an_open_transaction_holds_back() {
    require!(kafka);
    let log = Log::start();
    let client = Client::new();
    let tandem = log.tandem();
    tandem.customer(&client, "kept");
    tandem.published(&client);
    let before = whole_topic(&log.client(), CUSTOMER_TOPIC);
    let partition = before[0].partition;
    let open = log.open_mirror(CUSTOMER_TOPIC, &before[..1]);
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(
        &tandem.accounts_url("/graphql"),
        UPDATE,
        json!({"id": "kept", "input": name}),
    );
    tandem.published(&client);
    // One message of the transaction and one after it.
    let from = before[0].offset + 1;
    let held_back = format!("partition {partition} from offset {from} to {}", from + 2);
    let audit = tandem.operate(&["audit", "customer", "kept"]);
    assert!(!audit.succeeded, "{audit:?}");
    assert!(audit.errors.contains(&held_back), "{audit:?}");
    assert!(
        audit.output.contains("CREATED") && !audit.output.contains("UPDATED"),
        "{audit:?}"
    );
    let unknown = tandem.operate(&["audit", "customer", "unheard"]);
    assert!(
        unknown
            .output
            .contains("what can be read of the log holds no change"),
        "{unknown:?}"
    );
    let doctor = tandem.operate(&["doctor"]);
    assert!(doctor.output.contains(&held_back), "{doctor:?}");
    open.end(End::Aborted);
    let audit = tandem.operated(&["audit", "customer", "kept"]);
    assert!(audit.contains("UPDATED"), "{audit}");
}

#[test]
fn a_copy_of_a_log_that_has_not_ended_is_claimed_for_no_new_system() {
    require!(kafka);
    let client = Client::new();
    let topics = [CUSTOMER_TOPIC, ORDER_TOPIC, "accounts.customer.key"];
    let (directory, first) = (tempfile::tempdir().unwrap(), Log::start());
    let spawn = |log: &Log| {
        Tandem::builder()
            .data_dir(directory.path())
            .kafka(log.kafka.bootstrap())
            .spawn()
    };
    let copied = {
        let mut tandem = spawn(&first);
        tandem.wait_until_ready();
        tandem.customer(&client, "kept");
        tandem.published(&client);
        topics.map(|topic| whole_topic(&first.client(), topic))
    };
    // Another cluster, and a mirroring tool that writes in transactions.
    forget(directory.path());
    let second = Log::start();
    let open: Vec<Transaction> = topics
        .iter()
        .zip(&copied)
        .filter(|(_, events)| !events.is_empty())
        .map(|(topic, events)| {
            second.make(topic, if topic.ends_with("key") { 1 } else { 6 });
            second.open_mirror(topic, events)
        })
        .collect();
    let mut tandem = spawn(&second);
    tandem.process_says_in_log("nobody has claimed the topics as far as they can be read");
    for transaction in open {
        transaction.end(End::Committed);
    }
    tandem.wait_until_ready();
    tandem.replicated(&client, "kept", 1);
    let read = client.data(
        &tandem.accounts_url("/graphql"),
        "{ customer(id: \"kept\") { revision } }",
        json!({}),
    );
    assert_eq!(read["customer"]["revision"], json!(1));
    assert_eq!(
        tandem.operated(&["dead-letters", "list"]).trim(),
        "no dead letters"
    );
}

#[test]
fn a_new_system_on_a_log_with_holes_becomes_ready() {
    require!(kafka);
    let log = Log::start();
    let client = Client::new();
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        Tandem::builder()
            .accepts_unsigned()
            .data_dir(directory.path())
            .kafka(log.kafka.bootstrap())
            .start()
    };
    {
        let tandem = start();
        tandem.customer(&client, "kept");
        tandem.order(&client, "kept");
        tandem.published(&client);
    }
    for topic in [CUSTOMER_TOPIC, ORDER_TOPIC, "accounts.customer.key"] {
        let events = whole_topic(&log.client(), topic);
        log.mirror(topic, &events, End::Committed);
        log.mirror(topic, &events, End::Aborted);
    }
    // The key stays, and the stores are removed.
    forget(directory.path());
    let tandem = start();
    tandem.replicated(&client, "kept", 1);
    let read = client.data(
        &tandem.accounts_url("/graphql"),
        "{ customer(id: \"kept\") { revision } }",
        json!({}),
    );
    assert_eq!(read["customer"]["revision"], json!(1));
}

#[test]
fn partitions_that_are_added_are_read_by_everybody_from_their_beginning() {
    require!(kafka);
    let log = Log::start();
    let client = Client::new();
    let tandem = log.tandem();
    tandem.customer(&client, "before");
    let subscribe = |after: Option<&str>| {
        client.subscribe(
            Transport::WebSocket,
            &tandem.orders_url("/graphql/ws"),
            "subscription($after: String) { orderUpdated(after: $after) { cursor order { id } } }",
            json!({"after": after}),
        )
    };
    let live = subscribe(None);
    let first = tandem.order(&client, "before");
    let update = live.next()["data"]["orderUpdated"].clone();
    assert_eq!(update["order"]["id"], json!(first));
    let cursor = update["cursor"].as_str().unwrap().to_owned();

    // The keys of the events in new partitions.
    let in_new = |topic: &str| -> Vec<String> {
        let mut events = whole_topic(&log.client(), topic);
        events.retain(|event| event.partition >= 6);
        events.into_iter().map(|event| event.key).collect()
    };
    let mut customers = Vec::new();
    let mut one_more = || {
        let id = format!("after-{}", customers.len());
        create(&tandem, &client, &id);
        customers.push(id);
    };
    log.add_partitions(CUSTOMER_TOPIC, 12);
    // The relay and the projection have the same time limit, which begins when the partitions exist.
    poll_for(
        NOTICED,
        "the relay publishes a customer to a new partition, and the replica has it",
        || {
            one_more();
            in_new(CUSTOMER_TOPIC).iter().find(|id| {
                let read = client.graphql(
                    &tandem.orders_url("/graphql"),
                    ORDERING_CUSTOMER,
                    json!({"id": id}),
                );
                read["data"]["orderingCustomer"]["replica"]["revision"] == json!(1)
            })?;
            Some(())
        },
    );
    poll("the relay publishes customers to new partitions", || {
        one_more();
        (in_new(CUSTOMER_TOPIC).len() >= 5).then_some(())
    });
    for id in &customers {
        tandem.replicated(&client, id, 1);
        tandem.audited(&client, "customer", id, 1);
    }
    let (mut orders, mut heard_live) = (Vec::new(), Vec::new());
    let id_of = |update: &Value| {
        let id = &update["data"]["orderUpdated"]["order"]["id"];
        id.as_str().unwrap().to_owned()
    };
    log.add_partitions(ORDER_TOPIC, 12);
    poll_for(
        NOTICED,
        "the relay publishes an order to a new partition, and it is told live",
        || {
            orders.push(tandem.order(&client, "before"));
            while let Some(update) = live.next_within(Duration::from_millis(10)) {
                heard_live.push(id_of(&update));
            }
            let in_new = in_new(ORDER_TOPIC);
            in_new
                .iter()
                .any(|id| heard_live.contains(id))
                .then_some(())
        },
    );
    poll("the relay publishes orders to new partitions", || {
        orders.push(tandem.order(&client, "before"));
        (in_new(ORDER_TOPIC).len() >= 5).then_some(())
    });
    let mut wanted: Vec<&str> = orders.iter().map(String::as_str).collect();
    wanted.sort_unstable();
    // A subscriber from before, and one with a cursor that does not include the new partitions.
    for (subscriber, mut heard) in [(live, heard_live), (subscribe(Some(&cursor)), Vec::new())] {
        while heard.len() < orders.len() {
            heard.push(id_of(&subscriber.next()));
        }
        heard.sort_unstable();
        assert_eq!(heard, wanted);
    }
    for order in &orders {
        tandem.audited(&client, "order", order, 1);
    }
    // After partitions were added, a change goes to another partition than the previous one. It must still count as the
    // newer one.
    for revision in 2..=4 {
        let name = json!({"name": {"firstName": "Ada", "lastName": format!("Number{revision}")}});
        client.data(
            &tandem.accounts_url("/graphql"),
            UPDATE,
            json!({"id": "before", "input": name}),
        );
        tandem.replicated(&client, "before", revision);
    }
}
