//! What verifying a token adds to a read, at the service and through the gateway. Compares two systems, one of which
//! requires tokens.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    report::say,
    shared::{LeanClient, call_times, median},
    support::{
        Tandem,
        graph::{CREATE, customer_input},
    },
};

/// An odd number, for the median.
const ROUNDS: usize = 11;
const ROUND: Duration = Duration::from_millis(700);
const CUSTOMER: &str =
    "query($id: ID!) { customer(id: $id) { id name { firstName lastName } revision } }";

/// The median time of the calls of one round, in microseconds.
fn round(runtime: &Runtime, client: &Arc<LeanClient>, in_flight: usize) -> f64 {
    let client = Arc::clone(client);
    median(call_times(runtime, in_flight, ROUND, move |_| {
        let client = Arc::clone(&client);
        async move { drop(client.ask(json!({"id": "1"})).await) }
    }))
}

fn customer(runtime: &Runtime, tandem: &Tandem, token: Option<&str>) {
    let creating = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE).with_token(token);
    let input = customer_input("1", "Lovelace");
    runtime.block_on(creating.ask(json!({"input": input})));
}

pub fn measure(runtime: &Runtime) {
    let open = Tandem::start();
    let closed = Tandem::builder().flag("--auth").start();
    let token = closed.printed_token();
    customer(runtime, &open, None);
    customer(runtime, &closed, Some(&token));
    say!("\n# tokens: p50 of customer(id) in microseconds, embedded store");
    say!(
        "{:<24} {:>10} {:>10} {:>10}",
        "",
        "without",
        "with",
        "added"
    );
    for place in ["accounts", "gateway"] {
        let url = |tandem: &Tandem| match place {
            "accounts" => tandem.accounts_url("/graphql"),
            _ => tandem.gateway_url("/graphql"),
        };
        let without = Arc::new(LeanClient::new(&url(&open), CUSTOMER));
        let with = Arc::new(LeanClient::new(&url(&closed), CUSTOMER).with_token(Some(&token)));
        for in_flight in [1, 64] {
            let rounds: Vec<(f64, f64)> = (0..ROUNDS)
                .map(|_| {
                    let without = round(runtime, &without, in_flight);
                    (without, round(runtime, &with, in_flight))
                })
                .collect();
            say!(
                "{:<24} {:>10.0} {:>10.0} {:>10.0}",
                format!("{place}, {in_flight} in flight"),
                median(rounds.iter().map(|round| round.0).collect()),
                median(rounds.iter().map(|round| round.1).collect()),
                median(rounds.iter().map(|round| round.1 - round.0).collect()),
            );
        }
    }
}
