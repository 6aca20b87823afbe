//! Fills a system with customers and events.

use std::{ops::Range, time::Instant};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    EVENTS,
    shared::{LeanClient, send_all},
    support::{
        Client, Tandem,
        graph::{CREATE, UPDATE, customer_input},
    },
};

const IN_FLIGHT: usize = 64;
/// The first part of the ids.
const PREFIX: &str = "grown";

/// The id of a customer: in the order in which they were made.
pub fn id(number: usize) -> String {
    format!("{PREFIX}-{number:07}")
}

/// Adds these customers with all their events, and waits until they are through.
pub fn with(runtime: &Runtime, tandem: &Tandem, customers: Range<usize>) {
    let begun = Instant::now();
    let url = tandem.accounts_url("/graphql");
    let creating = LeanClient::new(&url, CREATE);
    let updating = LeanClient::new(&url, UPDATE);
    let (first, count) = (customers.start, customers.len());
    runtime.block_on(async {
        send_all(IN_FLIGHT, count, |number| {
            let input = customer_input(&id(first + number), "Lovelace");
            creating.ask(json!({"input": input}))
        })
        .await;
        for round in 1..EVENTS {
            send_all(IN_FLIGHT, count, |number| {
                let name = json!({"firstName": "Ada", "lastName": format!("Lovelace {round}")});
                updating.ask(json!({"id": id(first + number), "input": {"name": name}}))
            })
            .await;
        }
    });
    tandem.published(&Client::new());
    let last = id(customers.end - 1);
    tandem.replicated(&Client::new(), &last, EVENTS as i64);
    println!(
        "{customers:?} were made in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
}
