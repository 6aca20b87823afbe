//! How fast a subscriber that was disconnected reads what it missed.

use std::sync::Arc;

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    report::say,
    run,
    shared::LeanClient,
    socket::{Socket, find},
    support::{
        Client, Tandem, Transport,
        graph::{PLACE, order_input},
    },
    watchers::now,
};

/// How many orders are placed concurrently.
const AT_ONCE: usize = 64;
/// How often the catch-up is measured.
const ROUNDS: usize = 3;

const UPDATES: &str = "subscription($after: String) {
    orderUpdated(after: $after) { cursor previous type order { id revision status } } }";
const SNAPSHOT: &str = "subscription { orderFeed(snapshot: true) { __typename ... on OrderSnapshot { cursor complete } } }";

pub fn measure(runtime: &Runtime, tandem: &Tandem, changes: usize) {
    say!("\n# {changes} changes behind a cursor");
    let client = Client::new();
    tandem.customer(&client, "away");
    let url = tandem.orders_url("/graphql");
    let feed = client.subscribe(Transport::WebSocket, &url, SNAPSHOT, json!({}));
    let cursor = feed.next()["data"]["orderFeed"]["cursor"].clone();
    drop(feed);
    let orders = Arc::new(LeanClient::new(&url, PLACE));
    let begun = now();
    run(
        runtime,
        stream::iter(0..changes)
            .map(|_| orders.ask(json!({"input": order_input("away")})))
            .buffer_unordered(AT_ONCE)
            .for_each(async |_| {}),
    );
    say!("  written at {:.0} a second", rate(changes, begun));
    tandem.published(&client);
    for round in 1..=ROUNDS {
        let begun = now();
        let first = run(runtime, caught_up(tandem.orders, &cursor, changes));
        say!(
            "round {round}: {:.0} changes a second, the first after {:.0} ms",
            rate(changes, begun),
            (first - begun) as f64 / 1_000.0
        );
    }
}

fn rate(changes: usize, begun: u64) -> f64 {
    changes as f64 / (now() - begun) as f64 * 1_000_000.0
}

/// Reads this many changes. Returns the time at which the first one arrived.
async fn caught_up(port: u16, cursor: &Value, changes: usize) -> u64 {
    let mut socket = Socket::open(port).await;
    let payload = json!({"query": UPDATES, "variables": {"after": cursor}});
    let subscribe = json!({"id": "1", "type": "subscribe", "payload": payload});
    socket.say(&subscribe.to_string()).await;
    let (mut had, mut first) = (0, None);
    while had < changes {
        socket
            .read(|text| {
                assert!(
                    find(text, b"\"orderUpdated\":{").is_some(),
                    "{}",
                    String::from_utf8_lossy(text)
                );
                had += 1;
                first.get_or_insert_with(now);
            })
            .await;
    }
    first.unwrap_or_default()
}
