//! An upgrade of a local system: this version runs on the data directory that an earlier version left.

use std::{path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::support::{
    Client, Tandem,
    graph::{CREATE, PLACE, customer_input, order_input},
    poll,
};

const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) { revision name { lastName } changes(first: 5) { nodes { revision } } } }";
const REPLICA: &str = "query($id: ID!) { orderingCustomer(id: $id) { name { lastName } replica { revision } orders(first: 5) { nodes { status revision total } } } }";

/// The data directories of earlier versions, by version.
fn folders() -> Vec<PathBuf> {
    let all = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("test-data/data-folders");
    let entries = std::fs::read_dir(all).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|it| it == "gz"));
    found.sort();
    assert!(!found.is_empty(), "there is no data folder to start on");
    found
}

fn unpacked(archive: &PathBuf) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let status = Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{} cannot be unpacked", archive.display());
    folder
}

/// Checks what the directory holds according to its README.
#[track_caller]
fn is_whole(tandem: &Tandem, client: &Client) {
    let gateway = tandem.gateway_url("/graphql");
    for number in 0..12 {
        let id = json!({"id": format!("kept-{number}")});
        let (name, revision) = match number {
            1 => ("King".to_owned(), 2),
            other => (format!("Kept {other}"), 1),
        };
        if number == 2 {
            let erased = client.data(&gateway, CUSTOMER, id.clone());
            assert!(erased["customer"].is_null(), "{erased:#}");
        } else {
            let customer = &client.data(&gateway, CUSTOMER, id.clone())["customer"];
            assert_eq!(customer["name"]["lastName"], name);
            assert_eq!(customer["revision"], revision);
            let changes = customer["changes"]["nodes"].as_array().unwrap();
            assert_eq!(changes.len(), revision, "{customer:#}");
            let replica = &client.data(&gateway, REPLICA, id.clone())["orderingCustomer"];
            assert_eq!(replica["name"]["lastName"], name);
            assert_eq!(replica["replica"]["revision"], revision);
            let orders = replica["orders"]["nodes"].as_array().unwrap();
            assert_eq!(orders.len(), 2, "{replica:#}");
            let (status, revision) = match number % 3 {
                0 => ("CONFIRMED", 2),
                _ => ("PLACED", 1),
            };
            for order in orders {
                assert_eq!(order["status"], status, "{order:#}");
                assert_eq!(order["revision"], revision, "{order:#}");
            }
        }
    }
}

#[test]
fn this_version_starts_on_the_data_of_earlier_ones_and_all_is_there() {
    for archive in folders() {
        let folder = unpacked(&archive);
        let tandem = Tandem::builder().data_dir(folder.path()).start();
        let client = Client::new();
        is_whole(&tandem, &client);

        // New data is written beside the old data.
        let gateway = tandem.gateway_url("/graphql");
        let input = json!({"input": customer_input("new", "Lovelace")});
        client.data(&gateway, CREATE, input);
        tandem.replicated(&client, "new", 1);
        for customer in ["new", "kept-0"] {
            client.data(&gateway, PLACE, json!({"input": order_input(customer)}));
        }
        let count = || -> Option<Value> {
            let kept = client.data(&gateway, REPLICA, json!({"id": "kept-0"}));
            let orders = kept["orderingCustomer"]["orders"]["nodes"].clone();
            (orders.as_array()?.len() == 3).then_some(orders)
        };
        poll("the new order beside the old ones", count);

        // A rebuild from the log of the earlier version makes the same stores.
        for service in ["accounts", "orders"] {
            tandem.operated(&["rebuild", service]);
        }
        let audit = tandem.operated(&["audit", "customer", "kept-1", "--json"]);
        let audit: Value = serde_json::from_str(&audit).unwrap();
        let changes = audit.as_array().unwrap();
        let told: Vec<(i64, &str)> = changes
            .iter()
            .map(|change| {
                let revision = change["revision"].as_i64().unwrap();
                (revision, change["type"].as_str().unwrap())
            })
            .collect();
        assert_eq!(told, [(1, "CREATED"), (2, "UPDATED")], "{audit:#}");
        assert_eq!(
            changes[1]["differences"],
            json!([
                {"field": "name.firstName", "before": "Ada", "after": "Augusta"},
                {"field": "name.lastName", "before": "Kept 1", "after": "King"},
            ]),
            "{audit:#}"
        );
        let renamed = client.data(&gateway, CUSTOMER, json!({"id": "kept-1"}));
        assert_eq!(renamed["customer"]["name"]["lastName"], "King");
    }
}
