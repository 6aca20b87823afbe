//! What recording traces costs: the same system without tracing, with tracing of 1 % of the requests, and of all
//! requests, sent to a running collector.
//!
//!     cargo bench --bench traces
//!
//! Ratios matter; absolute times say little on a shared machine. The three are measured in turns, and the median of the
//! rounds is shown. The collector runs in this process, on the same processors, so the figures include its work.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    dead_code,
    missing_docs,
    unreachable_pub
)]

#[path = "../tests/system/traces/collector.rs"]
mod collector;
#[path = "report/mod.rs"]
mod report;
#[path = "shared/mod.rs"]
mod shared;
#[path = "../tests/system/support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::runtime::Runtime;

use collector::{Collector, Spoken};
use report::{Words, say};
use shared::{LeanClient, call_times, median};
use support::{
    Tandem,
    graph::{CREATE, customer_input},
};

/// An odd number, for the median.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_millis(800);
const CUSTOMER: &str =
    "query($id: ID!) { customer(id: $id) { id name { firstName lastName } revision } }";

/// The median time of a call in microseconds, and calls per second.
fn round(
    runtime: &Runtime,
    client: &Arc<LeanClient>,
    in_flight: usize,
    creates: bool,
) -> (f64, f64) {
    let client = Arc::clone(client);
    let times = call_times(runtime, in_flight, ROUND, move |_| {
        let client = Arc::clone(&client);
        async move {
            let variables = if creates {
                json!({"input": customer_input(&uuid::Uuid::now_v7().to_string(), "Lovelace")})
            } else {
                json!({"id": "1"})
            };
            drop(client.ask(variables).await);
        }
    });
    let rate = times.len() as f64 / ROUND.as_secs_f64();
    (median(times), rate)
}

fn main() {
    Words::among(&[]);
    report::begin("traces", "What recording traces costs", true);
    let runtime = Runtime::new().unwrap();
    let collector = Collector::start(Spoken::Http);
    let traced = |share: &str| {
        let mut builder = Tandem::builder();
        for (name, value) in collector.variables() {
            builder = builder.env(name, value);
        }
        let sampler = "parentbased_traceidratio";
        builder
            .env("OTEL_BSP_SCHEDULE_DELAY", "1000")
            .env("OTEL_TRACES_SAMPLER", sampler)
            .env("OTEL_TRACES_SAMPLER_ARG", share)
            .start()
    };
    let systems = [Tandem::start(), traced("0.01"), traced("1.0")];
    for system in &systems {
        let creating = LeanClient::new(&system.accounts_url("/graphql"), CREATE);
        runtime.block_on(creating.ask(json!({"input": customer_input("1", "Lovelace")})));
    }
    say!("# traces: p50 in microseconds, calls a second; embedded store, through the gateway");
    say!("{:<28} {:>20} {:>20} {:>20}", "", "off", "1 %", "100 %");
    for (what, query, creates) in [
        ("customer(id)", CUSTOMER, false),
        ("createCustomer", CREATE, true),
    ] {
        for in_flight in [1, 64] {
            let clients: Vec<Arc<LeanClient>> = systems
                .iter()
                .map(|system| Arc::new(LeanClient::new(&system.gateway_url("/graphql"), query)))
                .collect();
            let mut measured = vec![Vec::new(); systems.len()];
            for _ in 0..ROUNDS {
                for (client, measured) in clients.iter().zip(&mut measured) {
                    measured.push(round(&runtime, client, in_flight, creates));
                }
            }
            let shown: Vec<String> = measured
                .iter()
                .map(|rounds| {
                    let times = median(rounds.iter().map(|round| round.0).collect());
                    let rates = median(rounds.iter().map(|round| round.1).collect());
                    format!("{times:>11.0} {rates:>8.0}")
                })
                .collect();
            say!(
                "{:<28} {}",
                format!("{what}, {in_flight} in flight"),
                shown.join(" ")
            );
        }
    }
    report::end();
}
