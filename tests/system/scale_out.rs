//! Several instances of each service with the same databases and topics behave like one.

use std::time::Duration;

use serde_json::json;
use tandem_backends::require;

use super::support::{
    Client, Signal, Transport,
    checker::{System, check},
    fleet::{Fleet, graphql},
    graph::{CREATE, PLACE, UPDATE, customer_input, order_input},
    poll,
    workload::{Targets, Workload},
};

const ORDER_UPDATED: &str = "subscription($customerId: ID) {
    orderUpdated(customerId: $customerId) { type order { id revision } } }";

#[test]
fn instances_killed_and_added_in_the_middle_of_traffic_lose_nothing() {
    require!(mongod, kafka);
    let fleet = Fleet::new();
    let accounts = [fleet.instance("accounts"), fleet.instance("accounts")];
    let orders = [
        fleet.instance("orders"),
        fleet.instance("orders"),
        fleet.instance("orders"),
    ];
    let targets = Targets {
        accounts: graphql(&[&accounts[0], &accounts[1]]),
        orders: graphql(&[&orders[0], &orders[1], &orders[2]]),
    };
    let workload = Workload::start("fleet", 11, 4, &targets);
    workload.goes_on(200);
    accounts[1].process.signal(Signal::KILL);
    orders[2].process.signal(Signal::KILL);
    workload.goes_on(100);
    let newcomers = [fleet.instance("accounts"), fleet.instance("orders")];
    workload.goes_on(100);
    let history = workload.finish();
    for (accounts, orders) in [(&accounts[0], &orders[0]), (&newcomers[0], &newcomers[1])] {
        check(
            &System {
                accounts: &graphql(&[accounts])[0],
                orders: &graphql(&[orders])[0],
                kafka: fleet.kafka_client(),
            },
            &history,
        );
    }
}

#[test]
fn what_one_instance_does_every_instance_shows_and_tells() {
    require!(mongod, kafka);
    let fleet = Fleet::new();
    let accounts = [fleet.instance("accounts"), fleet.instance("accounts")];
    let orders = [
        fleet.instance("orders"),
        fleet.instance("orders"),
        fleet.instance("orders"),
    ];
    let client = Client::new();
    let accounts = graphql(&[&accounts[0], &accounts[1]]);
    let orders = graphql(&[&orders[0], &orders[1], &orders[2]]);

    client.data(
        &accounts[0],
        CREATE,
        json!({"input": customer_input("shared", "Lovelace")}),
    );
    // The other instance reads what the first one wrote, and continues from it.
    let name = json!({"name": {"firstName": "Ada", "lastName": "King"}});
    let updated = client.data(
        &accounts[1],
        UPDATE,
        json!({"id": "shared", "input": name, "expected": 1}),
    );
    assert_eq!(updated["updateCustomer"]["customer"]["revision"], 2);
    for url in &orders {
        let read = "{ orderingCustomer(id: \"shared\", minRevision: 2) { name { lastName } } }";
        let found = poll("the replica is up to date", || {
            let response = client.graphql(url, read, json!({}));
            response["errors"]
                .is_null()
                .then(|| response["data"].clone())
        });
        assert_eq!(found["orderingCustomer"]["name"]["lastName"], "King");
    }

    // An idempotency key is valid on every instance.
    let mut order = order_input("shared");
    order["idempotencyKey"] = json!("once");
    let first = client.data(&orders[0], PLACE, json!({"input": order}));
    let again = client.data(&orders[1], PLACE, json!({"input": order}));
    assert_eq!(first, again);

    // A subscriber of any instance gets the changes that any other one makes.
    let live: Vec<_> = orders
        .iter()
        .map(|url| {
            client.subscribe(
                Transport::WebSocket,
                &format!("{url}/ws"),
                ORDER_UPDATED,
                json!({"customerId": "shared"}),
            )
        })
        .collect();
    let mut heard = vec![false; live.len()];
    poll("every instance tells of an order", || {
        client.data(&orders[0], PLACE, json!({"input": order_input("shared")}));
        for (subscription, heard) in live.iter().zip(&mut heard) {
            *heard |= subscription
                .next_within(Duration::from_millis(300))
                .is_some();
        }
        heard.iter().all(|heard| *heard).then_some(())
    });
}
