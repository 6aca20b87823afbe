//! Stores that hold entries that were never in the log. A rebuild reports them, and removes them on an order that gives
//! their number.

use mongodb::{
    Collection,
    bson::{Bson, DateTime, Document, Uuid, doc},
};
use rdkafka::ClientConfig;
use serde_json::json;
use tandem_backends::{KafkaOptions, Servers, require};
use tokio::runtime::Runtime;

use super::support::{
    Client, Tandem,
    checker::{System, check},
    graph::{ADVANCE, CREATE, UPDATE, customer_input},
    poll,
    workload::{Targets, Workload},
};

/// The databases, accessed without the services.
struct Databases {
    runtime: Runtime,
    client: mongodb::Client,
}

impl Databases {
    fn collection(&self, database: &str, name: &str) -> Collection<Document> {
        self.client.database(database).collection(name)
    }

    fn find(&self, database: &str, name: &str, filter: Document) -> Option<Document> {
        let collection = self.collection(database, name);
        self.runtime
            .block_on(async { collection.find_one(filter).await })
            .unwrap()
    }

    fn get(&self, database: &str, name: &str, id: &str) -> Document {
        self.find(database, name, doc! { "_id": id }).unwrap()
    }

    fn insert(&self, database: &str, name: &str, document: Document) {
        let collection = self.collection(database, name);
        self.runtime
            .block_on(async { collection.insert_one(document).await })
            .unwrap();
    }

    fn set(&self, database: &str, name: &str, id: &str, set: Document) {
        let collection = self.collection(database, name);
        let update = doc! { "$set": set };
        let done = self
            .runtime
            .block_on(async { collection.update_one(doc! { "_id": id }, update).await })
            .unwrap();
        assert_eq!(done.matched_count, 1, "{id} in {name}");
    }

    /// Adds a copy of a document with another id and these changes.
    fn copy(&self, database: &str, name: &str, id: &str, changed: Document) {
        let mut copy = self.get(database, name, id);
        for (field, value) in changed {
            match field.split_once('.') {
                Some((outer, inner)) => {
                    copy.get_document_mut(outer).unwrap().insert(inner, value);
                }
                None => {
                    copy.insert(field, value);
                }
            }
        }
        self.insert(database, name, copy);
    }
}

/// A document without the fields that a rebuild makes anew.
fn lasting(mut document: Document) -> Document {
    document.remove("replicatedAt");
    document
}

#[test]
fn a_rebuild_takes_out_what_the_log_lacks_at_an_order_alone() {
    require!(mongod, kafka);
    let runtime = Runtime::new().unwrap();
    let starting = Servers::start(KafkaOptions::default());
    let servers = runtime.block_on(starting).unwrap();
    let tandem = Tandem::builder().servers(&servers).start();
    let databases = Databases {
        client: runtime
            .block_on(mongodb::Client::with_uri_str(servers.mongo.uri()))
            .unwrap(),
        runtime,
    };
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    for id in ["kept", "ahead"] {
        tandem.customer(&client, id);
        let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
        client.data(&gateway, UPDATE, json!({"id": id, "input": name}));
        tandem.replicated(&client, id, 2);
    }
    let order = tandem.order(&client, "kept");
    client.data(&gateway, ADVANCE, json!({"id": order, "to": "CONFIRMED"}));
    let targets = Targets {
        accounts: vec![tandem.accounts_url("/graphql")],
        orders: vec![tandem.orders_url("/graphql")],
    };
    let workload = Workload::start("tampered", 13, 4, &targets);
    workload.goes_on(100);

    let entries = [
        ("accounts", "customer.changes", "kept:1".to_owned()),
        ("accounts", "customer.changes", "kept:2".to_owned()),
        ("orders", "order.changes", format!("{order}:1")),
        ("orders", "order.changes", format!("{order}:2")),
    ];
    let states = [
        ("accounts", "customer.accounts", "kept"),
        ("accounts", "customer.accounts", "ahead"),
        ("orders", "order.orders", order.as_str()),
    ];
    poll("everything is published and projected", || {
        for (database, name, id) in states {
            let settled = doc! { "_id": id, "revision": 2, "pending.0": { "$exists": false } };
            databases.find(database, name, settled)?;
        }
        for (database, name, id) in &entries {
            databases.find(database, name, doc! { "_id": id })?;
        }
        Some(())
    });
    let all: Vec<(&str, &str, &str)> = states
        .into_iter()
        .chain(
            entries
                .iter()
                .map(|(base, name, id)| (*base, *name, id.as_str())),
        )
        .chain(["kept", "ahead"].map(|id| ("orders", "customer.orders", id)))
        .collect();
    let seen = || -> Vec<Document> {
        all.iter()
            .map(|(database, name, id)| lasting(databases.get(database, name, id)))
            .collect()
    };
    let before = seen();

    let forged = |prefix: &str| {
        let mut set = doc! { "revision": 9_i64 };
        if prefix.is_empty() {
            set.insert("name.lastName", "Forged");
        } else {
            set.insert("state.revision", 9_i64);
            set.insert("state.name.lastName", "Forged");
        }
        set
    };
    let phantom = doc! { "_id": "phantom", "state.id": "phantom" };
    databases.copy("accounts", "customer.accounts", "kept", phantom);
    databases.set("accounts", "customer.accounts", "ahead", forged("state"));
    databases.set(
        "accounts",
        "customer.accounts",
        "kept",
        doc! { "state.name.lastName": "Forged" },
    );
    databases.copy(
        "orders",
        "customer.orders",
        "kept",
        doc! { "_id": "phantom" },
    );
    databases.set("orders", "customer.orders", "ahead", forged(""));
    databases.copy(
        "orders",
        "order.orders",
        &order,
        doc! { "_id": "phantom-order", "state.id": "phantom-order" },
    );
    databases.set(
        "orders",
        "order.orders",
        &order,
        doc! { "revision": 9_i64, "state.revision": 9_i64, "state.status": "DELIVERED" },
    );
    for (database, name, id) in [&entries[0], &entries[2]] {
        let subject = id.split_once(':').unwrap().0;
        databases.copy(
            database,
            name,
            id,
            doc! { "_id": format!("{subject}:7"), "revision": 7_i64, "eventId": Uuid::new() },
        );
        databases.copy(
            database,
            name,
            id,
            doc! { "_id": "phantom:1", "subject": "phantom", "eventId": Uuid::new() },
        );
        databases.set(
            database,
            name,
            id,
            doc! { "changedBy": "forger", "eventId": Uuid::new(), "offset": 9_999_i64, "changedAt": DateTime::MIN },
        );
    }
    // An entry whose place is taken by another document.
    let (database, name, id) = &entries[1];
    let collection = databases.collection(database, name);
    databases
        .runtime
        .block_on(async { collection.delete_one(doc! { "_id": id }).await })
        .unwrap();
    databases.copy(
        database,
        name,
        "phantom:1",
        doc! { "_id": "impostor", "subject": "kept", "revision": 2_i64 },
    );

    let is_there = |database: &str, name: &str, id: &str| {
        databases.find(database, name, doc! { "_id": id }).is_some()
    };
    // Without an order they are reported and left.
    for (service, count) in [("accounts", 6), ("orders", 7)] {
        let output = tandem.operated(&["rebuild", service]);
        let told = format!("{count} stored are not as the log has them");
        assert!(output.contains(&told), "{output}");
        for line in output.lines().filter(|line| line.contains("events read")) {
            assert!(line.contains(" 0 removed, 0 set back"), "{output}");
        }
    }
    assert!(is_there("accounts", "customer.accounts", "phantom"));
    assert!(is_there("orders", "customer.orders", "phantom"));
    for (service, count, removed, revert) in [("accounts", 6, 3, 3), ("orders", 7, 4, 3)] {
        let file = tandem.data_dir().join(service);
        let output = tandem.operated(&[
            "rebuild",
            service,
            "--remove-what-the-log-lacks",
            "--confirm-removals",
            &count.to_string(),
            "--removed-file",
            file.to_str().unwrap(),
        ]);
        let done = format!("{removed} removed, {revert} set back");
        assert!(output.contains(&done), "{output}");
        let kept = std::fs::read_to_string(file).unwrap();
        assert_eq!(kept.lines().count(), count);
    }
    assert_eq!(seen(), before);
    for (database, name, field) in [
        ("accounts", "customer.accounts", "_id"),
        ("accounts", "customer.changes", "subject"),
        ("orders", "customer.orders", "_id"),
        ("orders", "order.orders", "_id"),
        ("orders", "order.changes", "subject"),
    ] {
        let phantom = doc! { field: { "$in": ["phantom", "phantom-order", "impostor"] } };
        assert_eq!(databases.find(database, name, phantom), None, "{name}");
    }
    let seventh = doc! { "revision": Bson::Int64(7), "subject": "kept" };
    assert_eq!(
        databases.find("accounts", "customer.changes", seventh),
        None
    );

    // The system continues from what the log says.
    let updated = client.data(
        &gateway,
        UPDATE,
        json!({"id": "ahead", "input": {"name": {"firstName": "Ada", "lastName": "Byron"}}, "expected": 2}),
    );
    assert_eq!(updated["updateCustomer"]["customer"]["revision"], 3);
    tandem.replicated(&client, "ahead", 3);
    let made = client.data(
        &gateway,
        CREATE,
        json!({"input": customer_input("phantom", "Real")}),
    );
    assert_eq!(made["createCustomer"]["customer"]["revision"], 1);
    tandem.replicated(&client, "phantom", 1);
    workload.goes_on(50);
    let history = workload.finish();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers.kafka.bootstrap());
    check(
        &System {
            accounts: &tandem.accounts_url("/graphql"),
            orders: &tandem.orders_url("/graphql"),
            kafka: config,
        },
        &history,
    );
    // Now there is nothing to remove.
    for service in ["accounts", "orders"] {
        let output = tandem.operated(&["rebuild", service]);
        for line in output.lines() {
            assert!(line.ends_with(" 0 removed, 0 set back"), "{output}");
        }
    }
}

#[test]
fn the_embedded_store_is_rebuilt_with_nothing_to_take_out() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "embedded");
    tandem.order(&client, "embedded");
    let targets = Targets {
        accounts: vec![tandem.accounts_url("/graphql")],
        orders: vec![tandem.orders_url("/graphql")],
    };
    // An event that is published and cleared between the check and the end of the log must not count as missing from
    // the log.
    let workload = Workload::start("embedded", 17, 4, &targets);
    workload.goes_on(50);
    for service in ["accounts", "orders", "accounts", "orders"] {
        let output = tandem.operated(&["rebuild", service]);
        for line in output.lines() {
            assert!(line.ends_with(" 0 removed, 0 set back"), "{output}");
        }
        workload.goes_on(25);
    }
    let history = workload.finish();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", tandem.bootstrap_servers());
    check(
        &System {
            accounts: &tandem.accounts_url("/graphql"),
            orders: &tandem.orders_url("/graphql"),
            kafka: config,
        },
        &history,
    );
}
