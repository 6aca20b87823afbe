//! Write access to the topics does not suffice to publish events: a record that the topic's own service has not signed
//! becomes a dead letter in every reader.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tandem_backends::require;
use tandem_event_path::{
    log::Record,
    signing::{Signatures, SigningKey, SigningSettings, Topics},
};

use super::support::{
    Client, Tandem, Transport,
    graph::UPDATE,
    ground::{CUSTOMERS, Ground, KEYS, Log, ORDERS, Raw},
    poll,
};

const SIGNATURE: &str = "ce_tandemsignature";
const NAMES: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } } }";

fn rename(tandem: &Tandem, client: &Client, id: &str, last_name: &str) {
    let name = json!({"name": {"firstName": "Ada", "lastName": last_name}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": id, "input": name}),
    );
}

/// The customer's name in accounts and in orders' replica.
fn names(tandem: &Tandem, client: &Client, id: &str) -> (Value, Value) {
    let data = client.data(&tandem.accounts_url("/graphql"), NAMES, json!({"id": id}));
    let query = "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } } }";
    let replica = client.data(&tandem.orders_url("/graphql"), query, json!({"id": id}));
    (
        data["customer"]["name"]["lastName"].clone(),
        replica["orderingCustomer"]["name"]["lastName"].clone(),
    )
}

fn newest(log: &Log, topic: &str, key: &str) -> Raw {
    let mut all = log.read(topic).into_iter();
    all.rfind(|raw| raw.key == key).unwrap()
}

fn without_signature(mut raw: Raw) -> Raw {
    raw.headers.retain(|(name, _)| name != SIGNATURE);
    raw
}

/// The same record with a revision far ahead.
fn at_revision_50(mut raw: Raw) -> Raw {
    let body = String::from_utf8(raw.payload.take().unwrap()).unwrap();
    let changed = body.replacen("\"revision\":1", "\"revision\":50", 1);
    assert_ne!(changed, body);
    raw.payload = Some(changed.into_bytes());
    for (name, value) in &mut raw.headers {
        if name == "ce_id" {
            *value = uuid::Uuid::now_v7().to_string().into_bytes();
        }
    }
    raw
}

/// The seed of a signing key in a file.
fn seed(text: &str) -> [u8; 32] {
    let bytes = STANDARD.decode(text.trim()).unwrap();
    bytes.try_into().unwrap()
}

/// A record as the holder of this signing key of accounts writes it.
fn signed_with(key: &SigningKey, topic: &str, raw: Raw) -> Raw {
    const TOPICS: Topics = &[(CUSTOMERS, "accounts"), (KEYS, "accounts")];
    let mut raw = without_signature(raw);
    let settings = SigningSettings::default();
    let signatures = Signatures::new("accounts", key.clone(), TOPICS, &settings);
    let signature = {
        let mut record = Record::new(topic, &raw.key, raw.payload.as_deref());
        let headers = raw.headers.iter();
        record
            .headers
            .extend(headers.map(|(name, value)| (name.as_str(), value.as_slice().into())));
        let signed = signatures.signed(record);
        signed.headers.last().unwrap().1.to_vec()
    };
    raw.headers.push((SIGNATURE.to_owned(), signature));
    raw
}

fn is_set_aside(tandem: &Tandem, service: &str, reason: &str) {
    poll(&format!("{service} sets aside: {reason}"), || {
        let told = tandem.operated(&["dead-letters", "list", "--service", service]);
        told.contains(reason).then_some(())
    });
}

#[test]
fn what_nobody_signed_who_may_write_there_is_a_dead_letter_and_never_applied() {
    forged(&Ground::embedded().asking_for_signatures());
}

#[test]
fn what_nobody_signed_who_may_write_there_is_never_applied_on_real_servers() {
    require!(mongod, kafka);
    forged(&Ground::on_real_servers().asking_for_signatures());
}

fn forged(ground: &Ground) {
    let client = Client::new();
    {
        let tandem = ground.start();
        for id in ["1", "2"] {
            tandem.customer(&client, id);
        }
        tandem.order(&client, "1");
        tandem.published(&client);
        let log = Log::of(&tandem);
        for topic in [CUSTOMERS, KEYS, ORDERS] {
            let all = poll("the topic has something", || {
                let all = log.read(topic);
                (!all.is_empty()).then_some(all)
            });
            for raw in all {
                assert!(raw.header(SIGNATURE).is_some(), "{topic} {}", raw.key);
            }
        }
        let live = client.subscribe(
            Transport::ServerSentEvents,
            &tandem.gateway_url("/graphql"),
            "subscription { customerUpdated(id: \"1\") { name { lastName } replica { revision } } }",
            json!({}),
        );

        // Three forged events of accounts: one changed, one without a signature, one with the signature of orders.
        let genuine = newest(&log, CUSTOMERS, "1");
        let changed = at_revision_50(genuine.clone());
        let unsigned = without_signature(changed.clone());
        let mut of_orders = unsigned.clone();
        let theirs = log.read(ORDERS)[0].header(SIGNATURE).unwrap();
        of_orders
            .headers
            .push((SIGNATURE.to_owned(), theirs.into_bytes()));
        log.write(CUSTOMERS, &[changed, unsigned, of_orders]);
        for service in ["accounts", "orders"] {
            is_set_aside(&tandem, service, "is the signature of another record");
            is_set_aside(&tandem, service, "ce_tandemsignature is missing");
            is_set_aside(&tandem, service, "none of those of accounts");
        }
        // Orders' own topic is protected too.
        let order = log.read(ORDERS)[0].clone();
        log.write(ORDERS, &[without_signature(order)]);
        is_set_aside(&tandem, "orders", "records are signed by orders");

        // A tombstone without a signature, and one that was signed for another customer.
        client.data(
            &tandem.gateway_url("/graphql"),
            "mutation { eraseCustomer(id: \"2\") { id } }",
            json!({}),
        );
        let of_another = poll("the tombstone of another", || {
            let raw = newest(&log, KEYS, "2");
            raw.payload.is_none().then_some(raw)
        });
        let key = newest(&log, KEYS, "1");
        let tombstone = Raw {
            payload: None,
            ..without_signature(key.clone())
        };
        let replayed = Raw {
            key: "1".to_owned(),
            partition: key.partition,
            ..of_another
        };
        log.write(KEYS, &[tombstone, replayed]);
        poll("accounts publishes the key again", || {
            (newest(&log, KEYS, "1").payload == key.payload).then_some(())
        });
        for service in ["accounts", "orders"] {
            is_set_aside(&tandem, service, "data-keys");
        }

        rename(&tandem, &client, "1", "King");
        tandem.replicated(&client, "1", 2);
        assert_eq!(names(&tandem, &client, "1"), ("King".into(), "King".into()));
        poll("the change is live", || {
            let told = live.next_within(std::time::Duration::from_millis(500))?;
            let customer = &told["data"]["customerUpdated"];
            assert!(
                customer["replica"]["revision"].as_i64() <= Some(2),
                "{told}"
            );
            (customer["name"]["lastName"] == "King").then_some(())
        });
        for service in ["accounts", "orders"] {
            let told = tandem.operated(&["rebuild", service]);
            assert!(told.contains(" 0 removed, 0 set back"), "{told}");
        }
        assert_eq!(names(&tandem, &client, "1"), ("King".into(), "King".into()));
        let audit = tandem.operated(&["audit", "customer", "1"]);
        let tells_of_50 = |line: &str| line.trim_start().starts_with("50 ");
        assert!(!audit.lines().any(tells_of_50), "{audit}");
    }
    // New stores trust no more than the old ones.
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let tandem = ground.start();
    tandem.replicated(&client, "1", 2);
    assert_eq!(names(&tandem, &client, "1"), ("King".into(), "King".into()));
    rename(&tandem, &client, "1", "Byron");
    tandem.replicated(&client, "1", 3);
}

#[test]
fn events_from_before_there_were_signatures_are_read_and_no_later_ones_without() {
    old_events(
        &Ground::embedded(),
        Ground::embedded().asking_for_signatures(),
    );
}

#[test]
fn events_from_before_there_were_signatures_are_read_on_real_servers() {
    require!(mongod, kafka);
    old_events(
        &Ground::on_real_servers(),
        Ground::on_real_servers().asking_for_signatures(),
    );
}

fn old_events(first: &Ground, second: Ground) {
    let client = Client::new();
    let old = |log: &Log, topic| -> Vec<Raw> {
        let all = log.read(topic).into_iter();
        all.filter(|raw| !raw.is_claim())
            .map(Raw::without_system)
            .map(without_signature)
            .collect()
    };
    let (customers, keys) = {
        let tandem = first.start();
        tandem.customer(&client, "1");
        tandem.published(&client);
        let log = Log::of(&tandem);
        (old(&log, CUSTOMERS), old(&log, KEYS))
    };
    {
        let log = second.log();
        log.put(CUSTOMERS, &customers);
        log.put(KEYS, &keys);
    }
    let second = second.with_key_of(first);
    {
        let tandem = second.start();
        tandem.replicated(&client, "1", 1);
        Log::of(&tandem).write(CUSTOMERS, &[at_revision_50(customers[0].clone())]);
        for service in ["accounts", "orders"] {
            is_set_aside(&tandem, service, "ce_tandemsignature is missing");
        }
        rename(&tandem, &client, "1", "King");
        tandem.replicated(&client, "1", 2);
    }
    // The position belongs to the system: a store that is made later has the same one.
    for service in ["accounts", "orders"] {
        second.lose_store(service);
    }
    let tandem = second.start();
    tandem.replicated(&client, "1", 2);
    assert_eq!(names(&tandem, &client, "1"), ("King".into(), "King".into()));
}

#[test]
fn another_signing_key_is_refused_until_it_is_ordered() {
    let ground = Ground::embedded().asking_for_signatures();
    let client = Client::new();
    let leaked = {
        let tandem = ground.start();
        tandem.customer(&client, "1");
        tandem.published(&client);
        let file = tandem.data_dir().join("accounts.signing.key");
        let leaked = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        SigningKey::from_seed(&seed(&leaked)).unwrap()
    };
    {
        // Its store answers before it has read the topics, so `up` may have seen it ready, and restarts it again and
        // again.
        let mut refused = ground.builder().spawn();
        refused
            .process
            .wait_for_line("the other key is refused", |line| {
                line.contains("is not the one that its events are signed with")
            });
    }
    {
        let tandem = ground.builder().flag("--claim-topics").start();
        // The claim that names the key and the change that it signed arrive on different topics.
        rename(&tandem, &client, "1", "King");
        poll("a change under the new key is in orders", || {
            (names(&tandem, &client, "1").1 == "King").then_some(())
        });
    }
    // What the old key has signed stays valid at its place in the log. A holder of the old key can publish nothing new,
    // and cannot erase anybody.
    {
        let tandem = ground.start();
        let log = Log::of(&tandem);
        let customers = log.read(CUSTOMERS);
        let first = customers.iter().find(|raw| raw.key == "1").unwrap();
        let forged = at_revision_50(first.clone());
        let tombstone = Raw {
            payload: None,
            ..newest(&log, KEYS, "1")
        };
        log.write(CUSTOMERS, &[signed_with(&leaked, CUSTOMERS, forged)]);
        log.write(KEYS, &[signed_with(&leaked, KEYS, tombstone)]);
        for service in ["accounts", "orders"] {
            is_set_aside(&tandem, service, "had been replaced before");
            is_set_aside(&tandem, service, "data-keys");
        }
        assert_eq!(names(&tandem, &client, "1"), ("King".into(), "King".into()));
        rename(&tandem, &client, "1", "Byron");
        poll("this start needs no order", || {
            (names(&tandem, &client, "1").1 == "Byron").then_some(())
        });
    }
    // New stores reach the same result: the first claim that they see is the old key's, and then they know as much as
    // the old ones.
    for service in ["accounts", "orders"] {
        ground.lose_store(service);
    }
    let tandem = ground.builder().flag("--claim-topics").start();
    poll("new stores have what counts", || {
        (names(&tandem, &client, "1") == ("Byron".into(), "Byron".into())).then_some(())
    });
    is_set_aside(&tandem, "orders", "had been replaced before");
}
