//! Runs every file in `queries/` on the running system, with its variables.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::support::{Client, Tandem, Transport, poll};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("queries")
}

fn operation(name: &str) -> (String, Value) {
    let text = fs::read_to_string(folder().join(format!("{name}.graphql"))).unwrap();
    let variables = fs::read_to_string(folder().join(format!("{name}.variables.json"))).unwrap();
    (text, serde_json::from_str(&variables).unwrap())
}

#[test]
fn every_query_of_the_folder_runs_and_answers() {
    let tandem = Tandem::start();
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    let mut run = BTreeSet::new();
    let mut data = |name: &str, id: Option<&str>| -> Value {
        let (query, mut variables) = operation(name);
        if let Some(id) = id {
            variables["id"] = json!(id);
        }
        run.insert(name.to_owned());
        client.data(&gateway, &query, variables)
    };

    let created = data("create-customer", None);
    assert_eq!(created["createCustomer"]["customer"]["revision"], 1);
    let again = data("create-customer", None);
    assert_eq!(again, created, "the same key is answered the same");
    let ordering = data("ordering-customer", None);
    assert_eq!(ordering["orderingCustomer"]["name"]["lastName"], "Lovelace");

    let placed = data("place-order", None);
    let order = &placed["placeOrder"]["order"];
    assert_eq!(order["total"], "512.30");
    assert_eq!(order["shipTo"]["city"], "Ockham");
    let id = order["id"].as_str().unwrap().to_owned();

    let subscribe = |name: &str| {
        let (query, variables) = operation(name);
        client.subscribe(Transport::ServerSentEvents, &gateway, &query, variables)
    };
    let orders_live = subscribe("order-updated");
    let customers_live = subscribe("customer-updated");
    let order_feed = subscribe("order-feed").next();
    assert_eq!(
        order_feed["data"]["orderFeed"]["orders"][0]["id"],
        id.as_str()
    );
    let customer_feed = subscribe("customer-feed").next();
    assert_eq!(
        customer_feed["data"]["customerFeed"]["customer"]["name"]["lastName"],
        "Lovelace"
    );
    let updated = data("update-customer", None);
    assert_eq!(updated["updateCustomer"]["customer"]["revision"], 2);
    let advanced = data("advance-order", Some(&id));
    assert_eq!(advanced["advanceOrder"]["order"]["status"], "CONFIRMED");
    // The subscriptions may have begun too late, so changes are made until both have shown one.
    let mut revision = 2;
    let mut live = (None, None);
    poll("both subscriptions show an update", || {
        live.0 = live
            .0
            .take()
            .or_else(|| orders_live.next_within(Duration::from_millis(200)));
        live.1 = live
            .1
            .take()
            .or_else(|| customers_live.next_within(Duration::from_millis(200)));
        if live.0.is_some() && live.1.is_some() {
            return Some(());
        }
        let (query, mut variables) = operation("place-order");
        variables["input"]["idempotencyKey"] = json!(format!("again-{revision}"));
        client.data(&gateway, &query, variables);
        let (query, mut variables) = operation("update-customer");
        variables["expectedRevision"] = json!(revision);
        variables["input"]["contact"]["email"] = json!(format!("ada{revision}@example.org"));
        client.data(&gateway, &query, variables);
        revision += 1;
        None
    });
    let (order_update, customer_update) = (live.0.unwrap(), live.1.unwrap());
    assert!(
        order_update["data"]["orderUpdated"]["cursor"].is_string(),
        "{order_update:#}"
    );
    assert_eq!(
        customer_update["data"]["customerUpdated"]["id"], "ada-1815",
        "{customer_update:#}"
    );
    run.extend(
        [
            "order-updated",
            "customer-updated",
            "order-feed",
            "customer-feed",
        ]
        .map(str::to_owned),
    );

    let mut data = |name: &str, id: Option<&str>| -> Value {
        let (query, mut variables) = operation(name);
        if let Some(id) = id {
            variables["id"] = json!(id);
        }
        run.insert(name.to_owned());
        client.data(&gateway, &query, variables)
    };
    tandem.audited(&client, "customer", "ada-1815", 1);
    let customer = data("customer", None);
    assert_eq!(customer["customer"]["creditCards"][0]["last4"], "1111");
    assert_eq!(
        customer["customer"]["changes"]["nodes"][0]["type"],
        "CREATED"
    );
    let customers = data("customers", None);
    assert_eq!(customers["customers"]["nodes"][0]["id"], "ada-1815");
    let both = data("customer-with-orders", None);
    assert!(
        !both["customer"]["orders"]["nodes"]
            .as_array()
            .unwrap()
            .is_empty()
    );
    let many = data("customers-with-orders", None);
    assert!(many["customers"]["nodes"][0]["orders"]["nodes"].is_array());
    tandem.audited(&client, "order", &id, 2);
    let found = data("order", Some(&id));
    assert_eq!(
        found["order"]["customer"]["creditCards"][0]["last4"],
        "1111"
    );
    assert_eq!(
        found["order"]["changes"]["nodes"].as_array().map(Vec::len),
        Some(2)
    );
    let listed = data("orders", None);
    assert!(!listed["orders"]["edges"].as_array().unwrap().is_empty());
    let cancelled = data("cancel-order", Some(&id));
    assert_eq!(cancelled["cancelOrder"]["order"]["status"], "CANCELLED");
    let erased = data("erase-customer", None);
    assert_eq!(erased["eraseCustomer"]["id"], "ada-1815");

    let there: BTreeSet<String> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.strip_suffix(".graphql").map(str::to_owned)
        })
        .collect();
    assert_eq!(run, there, "a file of queries/ that no test runs");
}
