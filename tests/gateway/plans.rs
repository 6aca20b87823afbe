//! Query plans of the operations in `queries/`: which services are called, in which order, and that none is called
//! twice.

use std::path::Path;

use serde_json::{Value, json};

use super::process::Gateway;
use super::stub;

/// The services that answer an operation, in the order in which the plan calls them.
fn services(node: &Value) -> Vec<String> {
    let mut found: Vec<String> = node["serviceName"]
        .as_str()
        .map(str::to_owned)
        .into_iter()
        .collect();
    let below = node["nodes"].as_array().into_iter().flatten();
    for child in below.chain(node.get("node")).chain(node.get("primary")) {
        found.extend(services(child));
    }
    found
}

#[tokio::test]
async fn every_operation_in_queries_asks_no_service_twice_and_none_in_vain() {
    let gateway = Gateway::start(&stub::nowhere(), &stub::nowhere()).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("queries");
    let mut planned = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file
            .extension()
            .is_none_or(|extension| extension != "graphql")
        {
            continue;
        }
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let query = std::fs::read_to_string(&file).unwrap();
        if query.contains("subscription ") {
            // A subscription has no dry run. The module `subscriptions` checks what the services are asked.
            continue;
        }
        let variables = std::fs::read_to_string(file.with_extension("variables.json")).unwrap();
        let variables: Value = serde_json::from_str(&variables).unwrap();
        let answer: Value = reqwest::Client::new()
            .post(format!("{}/graphql", gateway.url))
            .header("hive-expose-query-plan", "dry-run")
            .json(&json!({ "query": query, "variables": variables }))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let asked = services(&answer["extensions"]["queryPlan"]["node"]);
        let expected: &[&str] = match name.as_str() {
            "customer-with-orders" | "customers-with-orders" => &["accounts", "orders"],
            "order" => &["orders", "accounts"],
            "create-customer" | "update-customer" | "erase-customer" | "customer" | "customers" => {
                &["accounts"]
            }
            "ordering-customer" | "orders" | "place-order" | "advance-order" | "cancel-order" => {
                &["orders"]
            }
            _ => panic!("queries/{name}.graphql is new: say here which services must answer it"),
        };
        assert_eq!(asked, expected, "{name}: {answer}");
        planned += 1;
    }
    assert!(planned >= 10, "{planned}");
}
