//! Live feeds for clients: the library in `web/live` follows through the gateway while processes are killed.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::support::{
    Client, Process, Signal, Tandem, Transport,
    graph::{ADVANCE, PLACE, UPDATE, order_input},
    poll, poll_for, try_signal,
    workload::{History, Targets, Workload},
};

#[path = "live/browser.rs"]
mod browser;
#[path = "live/page.rs"]
mod page;

/// How long a follower may take to have everything after the last kill.
const CAUGHT_UP: Duration = Duration::from_secs(90);

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Node, if it is installed. Where it is required, it must be.
fn node() -> Option<Command> {
    let there = Command::new("node")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if there.is_ok_and(|status| status.success()) {
        return Some(Command::new("node"));
    }
    assert!(
        std::env::var_os("TANDEM_REQUIRE_BROWSER").is_none(),
        "node is not on this machine, and TANDEM_REQUIRE_BROWSER asks for it"
    );
    println!("LEFT OUT  the client library of live feeds: node is not on this machine");
    None
}

#[test]
fn the_client_library_and_the_ledger_of_the_page_hold_what_they_promise() {
    let Some(mut node) = node() else { return };
    let output = node
        .arg("--test")
        .arg(folder("web/live/"))
        .arg(folder("web/pages/live/"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A process that follows all orders.
struct Follower {
    process: Process,
    transport: &'static str,
}

impl Follower {
    fn start(gateway: &str, transport: &'static str) -> Option<Self> {
        let mut node = node()?;
        node.args(["--no-warnings", "--experimental-websocket"])
            .arg(folder("tests/system/live/follow.mjs"))
            .args([gateway, transport]);
        Some(Self {
            process: Process::start_with_input(&mut node),
            transport,
        })
    }

    fn lines(&self) -> Vec<Value> {
        let output = self.process.output();
        output
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    }

    /// The newest revision of each order. Checks that each revision arrived once and none is missing.
    fn orders(&self) -> BTreeMap<String, i64> {
        let mut held = BTreeMap::new();
        for line in self.lines() {
            assert!(line["restart"].is_null(), "{}: {line}", self.transport);
            for order in line["snapshot"].as_array().into_iter().flatten() {
                let (id, revision) = read(order);
                assert_eq!(held.insert(id, revision), None, "{}: twice", self.transport);
            }
            if line["update"].is_object() {
                let (id, revision) = read(&line["update"]);
                let before = held.insert(id.clone(), revision).unwrap_or(0);
                assert_eq!(
                    revision,
                    before + 1,
                    "{}: {id} had revision {before}",
                    self.transport
                );
            }
        }
        held
    }

    /// How often it subscribed, and how many gaps it noticed.
    fn counts(&self) -> Value {
        let lines = self.lines();
        let last = lines.iter().rev().find(|line| line["counts"].is_object());
        last.map(|line| line["counts"].clone()).unwrap_or_default()
    }
}

fn read(order: &Value) -> (String, i64) {
    let id = order["id"].as_str().unwrap().to_owned();
    (id, order["revision"].as_i64().unwrap())
}

/// Changes orders through the gateway while the gateway and orders are killed and restarted, three times each. Returns
/// what was acknowledged, and the orders that were placed in addition.
fn disruption(tandem: &Tandem, client: &Client) -> (History, Vec<String>) {
    let gateway = tandem.gateway_url("/graphql");
    let targets = Targets {
        accounts: vec![tandem.accounts_url("/graphql")],
        orders: vec![gateway.clone()],
    };
    let workload = Workload::start("live", 24, 2, &targets);
    let mut placed = Vec::new();
    workload.goes_on(40);
    for round in 0..3 {
        for (service, signal) in [
            ("orders", Signal::KILL),
            ("router", Signal::KILL),
            ("orders", Signal::TERM),
            ("router", Signal::TERM),
        ] {
            poll(&format!("{service} runs, in round {round}"), || {
                let id = tandem.child(service)?;
                try_signal(id, signal).then_some(())
            });
            let order = json!({"input": order_input("1")});
            poll("an order is taken again", || {
                let answer = client.try_graphql(&gateway, PLACE, order.clone()).ok()?;
                let id = answer["data"]["placeOrder"]["order"]["id"].as_str()?;
                placed.push(id.to_owned());
                Some(())
            });
            workload.goes_on(25);
        }
    }
    let history = workload.finish();
    (history, placed)
}

#[test]
fn a_follower_misses_nothing_and_hears_nothing_twice_while_orders_and_the_gateway_are_killed() {
    let tandem = Tandem::start();
    let client = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    tandem.customer(&client, "1");
    for _ in 0..120 {
        tandem.order(&client, "1");
    }
    let followers: Vec<Follower> = ["websocket", "sse"]
        .into_iter()
        .filter_map(|transport| Follower::start(&gateway, transport))
        .collect();
    let (history, placed) = disruption(&tandem, &client);
    for follower in &followers {
        poll_for(CAUGHT_UP, "the follower has every order", || {
            let held = follower.orders();
            history
                .orders
                .iter()
                .all(|(id, (revision, _))| held.get(id).is_some_and(|held| held >= revision))
                .then_some(())
                .filter(|()| placed.iter().all(|id| held.contains_key(id)))
        });
        println!(
            "{}: {} orders, {} acknowledged changes, {}",
            follower.transport,
            follower.orders().len(),
            history.acknowledged,
            follower.counts()
        );
    }
}

const FEED: &str = "subscription($after: String) {
    orderFeed(customerId: \"1\", after: $after, snapshot: true, heartbeatSeconds: 5) {
        __typename
        ... on OrderSnapshot { cursor previous complete orders { id revision customer { name { lastName } creditCards { last4 } } } }
        ... on OrderUpdate { cursor previous type order { id revision customer { creditCards { last4 } } } }
        ... on Heartbeat { cursor previous at } } }";
const CUSTOMER: &str = "subscription($after: String) {
    customerFeed(id: \"1\", after: $after, snapshot: true, heartbeatSeconds: 5) {
        __typename
        ... on CustomerSnapshot { cursor previous customer { name { lastName } replica { revision } } }
        ... on CustomerChangeUpdate { cursor previous changed: customer { name { lastName } replica { revision } } }
        ... on Heartbeat { cursor previous at } } }";

#[test]
fn every_transport_of_both_ports_carries_snapshot_changes_and_heartbeats_in_one_chain() {
    let tandem = Tandem::start();
    let client = Client::new();
    tandem.customer(&client, "1");
    let mut known = tandem.order(&client, "1");
    let mut revision = 1;
    let ports = [
        (tandem.gateway_url("/graphql"), FEED.to_owned()),
        // Cards belong to accounts only.
        (
            tandem.orders_url("/graphql"),
            FEED.replace(" creditCards { last4 }", " id"),
        ),
    ];
    for (url, feed_of) in ports {
        for transport in [
            Transport::ServerSentEvents,
            Transport::Multipart,
            Transport::WebSocket,
        ] {
            let what = format!("{transport:?} {url}");
            let feed = client.subscribe(transport, &url, &feed_of, json!({}));
            let first = feed.next()["data"]["orderFeed"].clone();
            assert_eq!(first["__typename"], "OrderSnapshot", "{what}: {first}");
            assert_eq!(first["complete"], true, "{what}");
            let orders = first["orders"].as_array().unwrap();
            let held = orders.iter().find(|order| order["id"] == known.as_str());
            assert!(held.is_some(), "{what}: {first}");
            if url == tandem.gateway_url("/graphql") {
                let customer = &held.unwrap()["customer"];
                assert_eq!(customer["creditCards"][0]["last4"], "1111", "{what}");
            }
            let placed = client.data(
                &url_of(&tandem, &url),
                PLACE,
                json!({"input": order_input("1")}),
            );
            known = placed["placeOrder"]["order"]["id"]
                .as_str()
                .unwrap()
                .to_owned();
            let second = feed.next()["data"]["orderFeed"].clone();
            assert_eq!(second["previous"], first["cursor"], "{what}: {second}");
            assert_eq!(second["order"]["id"], known.as_str(), "{what}");
            let advanced = json!({"id": known, "to": "CONFIRMED"});
            client.data(&url, ADVANCE, advanced);
            let third = feed.next()["data"]["orderFeed"].clone();
            assert_eq!(third["previous"], second["cursor"], "{what}: {third}");
            let fourth = feed.next()["data"]["orderFeed"].clone();
            assert_eq!(fourth["__typename"], "Heartbeat", "{what}: {fourth}");
            assert_eq!(fourth["previous"], third["cursor"], "{what}: {fourth}");
            drop(feed);
            let after = json!({"after": second["cursor"]});
            let resumed = client.subscribe(transport, &url, &feed_of, after);
            let again = resumed.next()["data"]["orderFeed"].clone();
            assert_eq!(again["previous"], second["cursor"], "{what}: {again}");
            assert_eq!(again["order"], third["order"], "{what}: {again}");

            let customer = client.subscribe(transport, &url, CUSTOMER, json!({}));
            let first = customer.next();
            let told = first.to_string();
            let first = first["data"]["customerFeed"].clone();
            assert_eq!(first["__typename"], "CustomerSnapshot", "{what}: {told}");
            assert_eq!(first["customer"]["replica"]["revision"], revision, "{what}");
            revision += 1;
            let name =
                json!({"name": {"firstName": "Ada", "lastName": format!("King {revision}")}});
            let change = json!({"id": "1", "input": name});
            client.data(&tandem.gateway_url("/graphql"), UPDATE, change);
            let second = customer.next()["data"]["customerFeed"].clone();
            assert_eq!(second["__typename"], "CustomerChangeUpdate", "{what}");
            assert_eq!(second["previous"], first["cursor"], "{what}: {second}");
            assert_eq!(second["changed"]["replica"]["revision"], revision);
        }
    }
}

/// The address to place an order for a follower at this address. It is the other port, because both see the same
/// orders.
fn url_of(tandem: &Tandem, url: &str) -> String {
    let gateway = tandem.gateway_url("/graphql");
    if url == gateway {
        tandem.orders_url("/graphql")
    } else {
        gateway
    }
}

#[test]
fn heartbeats_have_bounds() {
    let tandem = Tandem::start();
    let client = Client::new();
    for seconds in [4, 301] {
        let query =
            format!("subscription {{ orderFeed(heartbeatSeconds: {seconds}) {{ __typename }} }}");
        let url = tandem.gateway_url("/graphql");
        let feed = client.subscribe(Transport::WebSocket, &url, &query, json!({}));
        let refused = poll("a refusal", || feed.next_within(Duration::from_secs(1)));
        assert_eq!(
            refused["errors"][0]["extensions"]["field"],
            "heartbeatSeconds"
        );
    }
}
