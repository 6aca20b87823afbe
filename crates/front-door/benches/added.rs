//! Measures what the front door adds to a request.
//!
//! The same handler runs behind the front door and behind a bare HTTP server, and both are called in turns.
//!
//!     cargo bench -p tandem-front-door --bench added
//!
//! The query has variables, as clients send it, and the front door already knows its document. Servers and client have
//! one thread each. One request in flight shows the latency that the front door adds. With 64 in flight the server's
//! thread never rests, so the time between two answers is the time that one request takes on that thread.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::header;
use axum::routing::post;
use serde_json::json;
use tandem_front_door::graphql::{GraphQlRules, GraphSchema, Treatment};
use tandem_front_door::{FrontDoor, FrontDoorSettings, Tasks, stop};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

#[path = "../../../benches/shared/mod.rs"]
mod shared;

use shared::{LeanClient, call_times, median};

const SUPERGRAPH: &str = include_str!("../../../schema/supergraph.graphql");
const QUERY: &str = "query($id: ID!) { customer(id: $id) {
    id name { firstName lastName } contact { email primaryPhone } addresses { type city postalCode } revision } }";
const ANSWER: &str = r#"{"data":{"customer":{"id":"42","name":{"firstName":"Ada","lastName":"Lovelace"},"contact":{"email":"ada@example.org","primaryPhone":"+44 20 7946 0001"},"addresses":[{"type":"BILLING","city":"London","postalCode":"SW1Y 4JH"},{"type":"SHIPPING","city":"Ockham","postalCode":"GU23 6NQ"}],"revision":1}}}"#;
/// It is odd, so that there is a median.
const ROUNDS: usize = 15;
const ROUND: Duration = Duration::from_millis(500);

fn thread() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

fn handler() -> Router {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Router::new().route("/graphql", post(async move || (kind, ANSWER)))
}

/// Returns p50 and the time between two answers, both in microseconds.
fn measure(client: &Runtime, asked: &Arc<LeanClient>, in_flight: usize) -> (f64, f64) {
    let begun = Instant::now();
    let asked = Arc::clone(asked);
    let mut times = call_times(client, in_flight, ROUND, move |_| {
        let asked = Arc::clone(&asked);
        async move {
            asked.ask(json!({"id": "42"})).await;
        }
    });
    let between = begun.elapsed().as_secs_f64() * 1e6 / times.len() as f64;
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], between)
}

fn main() {
    let (server, client) = (thread(), thread());
    let listen = || server.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = |listener: &TcpListener| {
        let address = listener.local_addr().unwrap();
        Arc::new(LeanClient::new(&format!("http://{address}/graphql"), QUERY))
    };
    let listener = listen();
    let bare = url(&listener);
    server.spawn(async move { axum::serve(listener, handler()).await });
    let listener = listen();
    let behind = url(&listener);
    let rules = GraphQlRules {
        schema: Some(GraphSchema::from_sdl(SUPERGRAPH).unwrap()),
        treatment: Treatment {
            fill_empty_selections: true,
            is_federated: true,
            ..Treatment::default()
        },
        ..GraphQlRules::default()
    };
    let settings = FrontDoorSettings {
        rate_limit: std::num::NonZeroU32::MAX,
        ..FrontDoorSettings::default()
    };
    let door = FrontDoor::new(&settings, rules, Tasks::Shared);
    let (_stopper, stopped) = stop();
    server.spawn(async move {
        door.serve(listener, handler(), stopped, Duration::ZERO)
            .await
    });

    println!(
        "{:<12} {:>24} {:>24} {:>14} {:>18}",
        "in flight",
        "p50 µs, bare and behind",
        "between two, µs",
        "added to p50",
        "added between two"
    );
    for in_flight in [1, 64] {
        measure(&client, &bare, in_flight);
        measure(&client, &behind, in_flight);
        let rounds: Vec<[(f64, f64); 2]> = (0..ROUNDS)
            .map(|_| [&bare, &behind].map(|asked| measure(&client, asked, in_flight)))
            .collect();
        let of = |pick: fn(&[(f64, f64); 2]) -> f64| median(rounds.iter().map(pick).collect());
        println!(
            "{in_flight:<12} {:>11.1} {:>12.1} {:>11.1} {:>12.1} {:>14.1} {:>18.1}",
            of(|round| round[0].0),
            of(|round| round[1].0),
            of(|round| round[0].1),
            of(|round| round[1].1),
            of(|round| round[1].0 - round[0].0),
            of(|round| round[1].1 - round[0].1),
        );
    }
}
