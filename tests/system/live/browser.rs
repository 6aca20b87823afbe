//! The client library in a headless Chromium, through the gateway, while processes are killed.

use std::time::Instant;

use serde_json::{Value, json};

use super::{CAUGHT_UP, disruption};
use crate::support::{Client, Tandem, browser::Page};

const FOLLOW: &str = include_str!("follow.js");
const TRANSPORTS: [&str; 2] = ["websocket", "sse"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_misses_nothing_and_hears_nothing_twice_while_orders_and_the_gateway_are_killed() {
    let tandem = tokio::task::block_in_place(Tandem::start);
    follow(&tandem).await;
    tokio::task::block_in_place(|| drop(tandem));
}

async fn follow(tandem: &Tandem) {
    let url = tandem.gateway_url("");
    let Some(mut page) = Page::of_chromium("the client library of live feeds", &url).await else {
        return;
    };
    tokio::task::block_in_place(|| {
        let client = Client::new();
        tandem.customer(&client, "1");
        for _ in 0..120 {
            tandem.order(&client, "1");
        }
        drop(client);
    });
    page.go(&format!("{url}/")).await;
    page.until("the page is there", "document.readyState === 'complete'")
        .await;
    page.evaluate(&format!("{FOLLOW}; 1")).await;
    page.until(
        "both have their snapshot",
        "['websocket', 'sse'].every((name) => globalThis.followed[name]?.began)",
    )
    .await;
    let (history, placed) = tokio::task::block_in_place(|| {
        let client = Client::new();
        disruption(tandem, &client)
    });
    let mut expected: Vec<(&str, i64)> = placed.iter().map(|id| (id.as_str(), 1)).collect();
    let acknowledged = history.orders.iter();
    expected.extend(acknowledged.map(|(id, (revision, _))| (id.as_str(), *revision)));
    for transport in TRANSPORTS {
        let begun = Instant::now();
        let seen = loop {
            let seen = page
                .evaluate(&format!("globalThis.followed[{}]", json!(transport)))
                .await;
            assert_eq!(seen["faults"], json!([]), "{transport}: {}", seen["counts"]);
            if has_all(&seen, &expected) {
                break seen;
            }
            assert!(begun.elapsed() < CAUGHT_UP, "{transport}: {seen}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        };
        println!(
            "in Chromium, {transport}: {} acknowledged changes, {}",
            history.acknowledged, seen["counts"]
        );
        assert!(seen["counts"]["connections"].as_i64() > Some(3), "{seen}");
    }
}

fn has_all(seen: &Value, expected: &[(&str, i64)]) -> bool {
    expected.iter().all(|(id, revision)| {
        seen["orders"][id]
            .as_i64()
            .is_some_and(|it| it >= *revision)
    })
}
