//! Stores that are rebuilt from the log: on an operator's order while everything runs, and automatically when they are
//! new.

use std::time::Duration;

use rdkafka::ClientConfig;
use serde_json::{Value, json};

use super::support::{
    Client, Signal, Tandem,
    checker::{System, check},
    graph::{ADVANCE, UPDATE},
    poll, poll_for, signal,
    workload::{Targets, Workload},
};

fn workload(tandem: &Tandem, prefix: &str) -> Workload {
    let targets = Targets {
        accounts: vec![tandem.accounts_url("/graphql")],
        orders: vec![tandem.orders_url("/graphql")],
    };
    Workload::start(prefix, 5, 3, &targets)
}

fn kafka(tandem: &Tandem) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", tandem.bootstrap_servers());
    config
}

/// The lines that say what was rebuilt, as (what, read, written, refused).
fn told(output: &str) -> Vec<(String, u64, u64, u64)> {
    output
        .lines()
        .map(|line| {
            let (what, rest) = line.split_once(": ").unwrap();
            let numbers: Vec<u64> = rest
                .split(|c: char| !c.is_ascii_digit())
                .filter_map(|digits| digits.parse().ok())
                .collect();
            assert!(rest.contains("events/s"), "{line}");
            (what.to_owned(), numbers[0], numbers[1], numbers[2])
        })
        .collect()
}

#[test]
fn a_rebuild_in_the_middle_of_traffic_takes_nothing_from_a_reader() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "read");
    let order = tandem.order(&client, "read");
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": "read", "input": name}),
    );
    tandem.replicated(&client, "read", 2);
    let workload = workload(&tandem, "rebuilt");
    workload.goes_on(150);
    for service in ["accounts", "orders"] {
        let mut rebuild = tandem.begin(&["rebuild", service]);
        // A reader never sees less than before.
        let see = |url: String, query: &str| client.data(&url, query, json!({"order": order}));
        while rebuild.ended().is_none() {
            let seen = see(
                tandem.orders_url("/graphql"),
                "query($order: ID!) { orderingCustomer(id: \"read\") { name { lastName } replica { revision } }
                    order(id: $order) { status changes { nodes { type } } } }",
            );
            assert_eq!(seen["orderingCustomer"]["name"]["lastName"], "King");
            assert_eq!(seen["orderingCustomer"]["replica"]["revision"], 2);
            assert_eq!(seen["order"]["status"], "PLACED");
            let seen = client.data(
                &tandem.accounts_url("/graphql"),
                "{ customer(id: \"read\") { revision creditCards { last4 } } }",
                json!({}),
            );
            assert_eq!(
                seen["customer"],
                json!({"revision": 2, "creditCards": [{"last4": "1111"}]})
            );
        }
        assert!(rebuild.wait_for_end(Duration::from_secs(1)).success());
        let (output, _) = rebuild.all_output();
        let told = told(&output);
        let names: Vec<&str> = told.iter().map(|(what, ..)| what.as_str()).collect();
        let wanted: &[&str] = match service {
            "accounts" => &["customer.accounts", "accounts-audit"],
            _ => &["order.orders", "orders-audit", "orders-replica"],
        };
        assert_eq!(names, wanted, "{output}");
        for (what, read, written, refused) in told {
            assert!(read > 20 && written > 0 && refused == 0, "{what}: {output}");
            // Several revisions of one aggregate are one write.
            assert!(written <= read, "{what}: {output}");
        }
    }
    workload.goes_on(50);
    let history = workload.finish();
    check(
        &System {
            accounts: &tandem.accounts_url("/graphql"),
            orders: &tandem.orders_url("/graphql"),
            kafka: kafka(&tandem),
        },
        &history,
    );
}

#[test]
fn an_interrupted_rebuild_is_started_again() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "interrupted");
    let order = tandem.order(&client, "interrupted");
    // While the broker is stopped, a rebuild does not end by itself.
    let broker = tandem.child("broker").unwrap();
    let begun = || {
        signal(broker, Signal::STOP);
        // Of two concurrent rebuilds the one that came second is refused. The other one goes on.
        let mut both: Vec<_> = (0..2)
            .map(|_| tandem.begin(&["rebuild", "orders"]))
            .collect();
        let second = poll("one of two rebuilds is refused", || {
            both.iter_mut()
                .position(|rebuild| rebuild.ended().is_some())
        });
        let mut refused = both.remove(second);
        assert!(!refused.wait_for_end(Duration::from_secs(1)).success());
        let (_, errors) = refused.all_output();
        assert!(errors.contains("under way already"), "{errors}");
        both.remove(0)
    };
    // The operator disconnects.
    let rebuild = begun();
    rebuild.signal(Signal::KILL);
    signal(broker, Signal::CONT);
    let said = poll("the rebuild is started again", || {
        let said = tandem.operate(&["rebuild", "orders"]);
        assert!(
            said.succeeded || said.errors.contains("under way already"),
            "{said:#?}"
        );
        said.succeeded.then_some(said)
    });
    assert_eq!(told(&said.output).len(), 3);
    // The service dies.
    let mut rebuild = begun();
    let orders = tandem.child("orders").unwrap();
    signal(orders, Signal::KILL);
    let status = rebuild.wait_for_end(Duration::from_secs(20));
    assert!(!status.success());
    let (_, errors) = rebuild.all_output();
    assert!(errors.contains("start it again at any time"), "{errors}");
    signal(broker, Signal::CONT);
    poll("orders is there again", || {
        let health = client.try_get(&tandem.orders_url("/actuator/health/readiness"))?;
        (health.status == 200).then_some(())
    });
    assert_eq!(told(&tandem.operated(&["rebuild", "orders"])).len(), 3);
    let found = client.data(
        &tandem.orders_url("/graphql"),
        "query($order: ID!) { order(id: $order) { status } }",
        json!({"order": order}),
    );
    assert_eq!(found["order"]["status"], "PLACED");
}

/// What both services know of the customer and the order.
fn known(tandem: &Tandem, client: &Client, order: &str) -> Option<Value> {
    let accounts = client.try_graphql(
        &tandem.accounts_url("/graphql"),
        "{ customer(id: \"filled\") { revision createdAt updatedAt name { lastName } creditCards { type last4 expiration nameOnCard }
            changes { nodes { revision type changedAt changedBy eventId changedFields } } } }",
        json!({}),
    );
    let orders = client.try_graphql(
        &tandem.orders_url("/graphql"),
        "query($order: ID!) { orderingCustomer(id: \"filled\") { name { lastName } replica { revision } orders { nodes { id } } }
            order(id: $order) { status total revision placedAt changes { nodes { revision type changedAt changedBy } } } }",
        json!({"order": order}),
    );
    let (accounts, orders) = (accounts.ok()?, orders.ok()?);
    let complete = accounts["errors"].is_null()
        && orders["errors"].is_null()
        && accounts["data"]["customer"]["changes"]["nodes"]
            .as_array()?
            .len()
            == 2
        && orders["data"]["order"]["changes"]["nodes"]
            .as_array()?
            .len()
            == 2
        && orders["data"]["orderingCustomer"]["replica"]["revision"] == 2;
    complete.then(|| json!({"accounts": accounts["data"], "orders": orders["data"]}))
}

#[test]
fn a_service_on_an_empty_store_fills_it_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new();
    let start = || Tandem::builder().data_dir(directory.path()).start();
    let (order, before) = {
        let tandem = start();
        tandem.customer(&client, "filled");
        let order = tandem.order(&client, "filled");
        let gateway = tandem.gateway_url("/graphql");
        client.data(&gateway, ADVANCE, json!({"id": order, "to": "CONFIRMED"}));
        let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
        client.data(&gateway, UPDATE, json!({"id": "filled", "input": name}));
        let before = poll("everything is projected", || {
            known(&tandem, &client, &order)
        });
        (order, before)
    };
    for store in ["orders.redb", "accounts.redb"] {
        std::fs::remove_file(directory.path().join(store)).unwrap();
        let tandem = start();
        let after = poll_for(Duration::from_secs(60), "the new store is filled", || {
            known(&tandem, &client, &order)
        });
        assert_eq!(after, before, "after {store} was lost");
        // The store continues where the log ends: no revision is used twice, and no customer is created twice.
        let again = client.graphql(
            &tandem.accounts_url("/graphql"),
            super::support::graph::CREATE,
            json!({"input": super::support::graph::customer_input("filled", "Twice")}),
        );
        assert_eq!(
            again["errors"][0]["extensions"]["code"], "ALREADY_EXISTS",
            "{again:#}"
        );
        let stale = client.graphql(
            &tandem.accounts_url("/graphql"),
            UPDATE,
            json!({"id": "filled", "input": {"addresses": []}, "expected": 1}),
        );
        assert_eq!(
            stale["errors"][0]["extensions"]["code"], "REVISION_CONFLICT",
            "{stale:#}"
        );
    }
}

#[test]
fn the_audit_of_a_customer_is_printed_as_a_table_and_as_json() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "audited");
    tandem.customer(&client, "other");
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    client.data(
        &tandem.gateway_url("/graphql"),
        UPDATE,
        json!({"id": "audited", "input": name}),
    );
    tandem.replicated(&client, "audited", 2);
    let table = tandem.operated(&["audit", "customer", "audited"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].contains("revision") && lines[0].contains("event"),
        "{table}"
    );
    assert!(
        table.contains("CREATED") && table.contains("UPDATED"),
        "{table}"
    );
    assert!(table.contains("name.lastName: Lovelace -> King"), "{table}");
    assert!(!table.contains("4111111111111111"), "{table}");

    let changes: Value =
        serde_json::from_str(&tandem.operated(&["audit", "customer", "audited", "--json"]))
            .unwrap();
    let changes = changes.as_array().unwrap();
    assert_eq!(changes.len(), 2);
    tandem.audited(&client, "customer", "audited", 2);
    let shown = client.data(
        &tandem.accounts_url("/graphql"),
        "{ customer(id: \"audited\") { changes { nodes { revision type changedAt changedBy eventId } } } }",
        json!({}),
    );
    for (change, shown) in changes
        .iter()
        .zip(shown["customer"]["changes"]["nodes"].as_array().unwrap())
    {
        for field in ["revision", "type", "changedAt", "changedBy", "eventId"] {
            assert_eq!(change[field], shown[field], "{field}");
        }
    }
    assert_eq!(
        changes[1]["differences"],
        json!([{"field": "name.lastName", "before": "Lovelace", "after": "King"}])
    );
    let nobody = tandem.operated(&["audit", "customer", "nobody"]);
    assert!(nobody.contains("no change of customer nobody"), "{nobody}");
}
