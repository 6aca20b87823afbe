//! Creations that arrive at a constant rate, whether or not earlier ones are answered, like those of many independent
//! clients. Times count from the moment at which a creation was due, so that a stall shows in all creations that wait
//! behind it. The floor is a bare write that arrives in the same way.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use serde_json::json;
use tokio::{runtime::Runtime, sync::Semaphore};

use crate::{
    report::{self, Curve, Curves, say},
    rounds::load,
    shared::{LeanClient, call_at_rate, median, percentile},
    support::{
        Tandem,
        graph::{CREATE, customer_input},
    },
    visible::{VISIBLE, creating, next_id, through},
};

/// Fractions of the closed-loop rate: that of 64 clients that each send the next creation when the previous one is
/// answered.
const SHARES: [f64; 4] = [0.25, 0.5, 0.75, 0.9];
const TIME: Duration = Duration::from_secs(20);
/// The most creations in flight. The others wait, and their times continue to count.
const IN_FLIGHT: usize = 256;
/// How many per second are also looked up in orders.
const LOOKED_FOR: f64 = 200.0;
/// An odd number, for the median.
const CLOSED_ROUNDS: usize = 3;

const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// Times in milliseconds, sorted.
#[derive(Default)]
struct Times {
    answered: Vec<f64>,
    visible: Vec<f64>,
}

struct Clients {
    accounts: LeanClient,
    orders: LeanClient,
    permits: Semaphore,
    times: Mutex<Times>,
}

impl Clients {
    async fn create(&self, due: Instant, is_looked_for: bool) {
        let since = || due.elapsed().as_secs_f64() * 1_000.0;
        let _permit = self.permits.acquire().await.unwrap();
        let id = next_id();
        let input = customer_input(&id, "Lovelace");
        self.accounts.ask(json!({"input": input})).await;
        self.times.lock().unwrap().answered.push(since());
        if is_looked_for {
            self.orders.ask(json!({"id": id})).await;
            self.times.lock().unwrap().visible.push(since());
        }
    }
}

/// A bare write that arrives at the same rate as the creations.
pub struct Floor<'a> {
    pub name: &'a str,
    pub write: &'a dyn Fn() -> BoxFuture<'static, ()>,
}

/// Measures fractions of the highest rate, and the floor after each.
pub fn measure(runtime: &Runtime, tandem: &Tandem, chart: &str, floor: &Floor<'_>) {
    through(tandem);
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    let rounds = (0..CLOSED_ROUNDS).map(|_| load(runtime, 64, creating(&accounts)).per_second());
    let most = median(rounds.collect());
    through(tandem);
    say!(
        "\ncreations that arrive at a constant rate, {} s each, in parts of the {most:.0}/s that 64 clients reach; ms since each was to be sent\n\
         floor: {}, at the same rate, behind each",
        TIME.as_secs(),
        floor.name
    );
    say!(
        "{:>6} {:>8} | {:>8} {:>8} {:>8} | {:>8} {:>8} {:>8} | {:>8} {:>8} {:>8}",
        "part",
        "/s",
        "answer",
        "p99",
        "p99.9",
        "visible",
        "p99",
        "p99.9",
        "floor",
        "p99",
        "p99.9"
    );
    let mut curves: Vec<Curve> = ["answer", "visible", "floor"]
        .iter()
        .flat_map(|what| PARTS.map(|(part, _)| format!("{what}, {part}")))
        .map(|name| Curve {
            name,
            points: Vec::new(),
        })
        .collect();
    for share in SHARES {
        let rate = most * share;
        let times = arrivals(runtime, tandem, rate);
        let of = |times: &[f64]| PARTS.map(|(_, part)| percentile(times, part));
        // Work that the services still have in progress must not slow the floor.
        through(tandem);
        let bare = bare_arrivals(runtime, rate, floor);
        let figures = [of(&times.answered), of(&times.visible), of(&bare)];
        let shown = figures.map(|[p50, p99, p999]| format!("{p50:>8.1} {p99:>8.1} {p999:>8.1}"));
        say!("{share:>6.2} {rate:>8.0} | {}", shown.join(" | "));
        for (curve, figure) in curves.iter_mut().zip(figures.into_iter().flatten()) {
            curve.points.push((rate, figure));
        }
    }
    report::curves(
        chart,
        &Curves {
            title: "A creation while others arrive at a constant rate",
            across: "creations a second",
            up: "ms",
            curves,
        },
    );
}

fn arrivals(runtime: &Runtime, tandem: &Tandem, rate: f64) -> Times {
    let clients = Arc::new(Clients {
        accounts: LeanClient::new(&tandem.accounts_url("/graphql"), CREATE),
        orders: LeanClient::new(&tandem.orders_url("/graphql"), VISIBLE),
        permits: Semaphore::new(IN_FLIGHT),
        times: Mutex::default(),
    });
    let each_looked_for = (rate / LOOKED_FOR).max(1.0) as u32;
    call_at_rate(runtime, rate, TIME, |number, due| {
        let clients = Arc::clone(&clients);
        let is_looked_for = number % each_looked_for == 0;
        async move { clients.create(due, is_looked_for).await }
    });
    let mut times = std::mem::take(&mut *clients.times.lock().unwrap());
    times.answered.sort_by(f64::total_cmp);
    times.visible.sort_by(f64::total_cmp);
    times
}

fn bare_arrivals(runtime: &Runtime, rate: f64, floor: &Floor<'_>) -> Vec<f64> {
    let permits = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut times = call_at_rate(runtime, rate, TIME, |_, due| {
        let permits = Arc::clone(&permits);
        let write = (floor.write)();
        async move {
            let _permit = permits.acquire().await.unwrap();
            write.await;
            due.elapsed().as_secs_f64() * 1_000.0
        }
    });
    times.sort_by(f64::total_cmp);
    times
}
