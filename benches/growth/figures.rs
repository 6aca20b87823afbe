//! The measurements that are made at each size.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    fill::{self, id},
    shared::{LeanClient, call_times, median, percentile, resident_mib},
    support::{
        Client, Process, Signal, Tandem,
        graph::{CREATE, customer_input},
    },
};

/// How long a round of each rate and each p50 takes. The median of the rounds is reported, so their number is odd.
const TIME: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
/// More reads than one round makes.
const APART: usize = 100_000;
/// How long the allocator takes to return freed memory.
const SETTLES: Duration = Duration::from_secs(12);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const REBUILT_WITHIN: Duration = Duration::from_secs(1_800);
/// An odd number, for the median.
const PAGES: usize = 21;
/// Customers per page, and the page size for walking to the last page.
const PAGE: usize = 20;
const WALK: usize = 100;

const CUSTOMER: &str = "query($id: ID!) { customer(id: $id) { id revision name { lastName } } }";
const ORDERING: &str = "query($id: ID!) { orderingCustomer(id: $id) { id name { lastName } } }";
const AUDIT: &str =
    "query($id: ID!) { customer(id: $id) { changes(first: 10) { nodes { revision type } } } }";
const CUSTOMERS: &str =
    "query($first: Int!, $after: String) { customers(first: $first, after: $after) {
    nodes { id } pageInfo { hasNextPage endCursor } } }";

/// One measurement.
pub struct Figure {
    pub name: String,
    pub unit: &'static str,
    pub value: f64,
    /// Whether a higher value is better.
    pub is_rate: bool,
}

fn takes(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
    Figure {
        name: name.into(),
        unit,
        value,
        is_rate: false,
    }
}

fn rate(name: impl Into<String>, value: f64) -> Figure {
    Figure {
        name: name.into(),
        unit: "a second",
        value,
        is_rate: true,
    }
}

/// Measures everything with this many customers. Restarts the system, but not the servers, which are given by name and
/// process id.
pub fn measure(
    runtime: &Runtime,
    tandem: &mut Tandem,
    servers: &[(&'static str, u32)],
    size: usize,
) -> Vec<Figure> {
    println!("measuring at {size} customers");
    let mut figures = vec![rate(
        "creations, 64 in flight",
        creations(runtime, tandem, size),
    )];
    for (name, url, query) in [
        ("customer(id)", tandem.accounts_url("/graphql"), CUSTOMER),
        (
            "orderingCustomer(id)",
            tandem.orders_url("/graphql"),
            ORDERING,
        ),
        (
            "a customer's audit trail",
            tandem.accounts_url("/graphql"),
            AUDIT,
        ),
    ] {
        let p50 = reads(runtime, &url, query, size);
        figures.push(takes(format!("{name}, p50, 1 in flight"), "µs", p50));
    }
    let pages = LeanClient::new(&tandem.accounts_url("/graphql"), CUSTOMERS);
    let (first, last) = runtime.block_on(first_and_last_page(&pages));
    figures.push(takes("first page of the customers, p50", "µs", first));
    figures.push(takes("last page of the customers, p50", "µs", last));
    for service in ["accounts", "orders"] {
        let begun = Instant::now();
        let mut command = tandem.begin(&["rebuild", service]);
        let status = command.wait_for_end(REBUILT_WITHIN);
        assert!(status.success(), "{:?}", command.all_output());
        let seconds = begun.elapsed().as_secs_f64();
        let name = format!("rebuild of {service}, events of all its topics");
        figures.push(rate(name, events_read(&mut command) / seconds));
    }
    std::thread::sleep(SETTLES);
    figures.extend(memory(tandem, servers, "after that"));
    tandem.process.signal(Signal::TERM);
    tandem.process.wait_for_end(STOPS_WITHIN);
    let begun = Instant::now();
    tandem.start_again();
    figures.push(takes(
        "start until ready",
        "s",
        begun.elapsed().as_secs_f64(),
    ));
    let begun = Instant::now();
    fill::replicated(tandem, size);
    figures.push(takes(
        "from then until a customer is read in orders",
        "s",
        begun.elapsed().as_secs_f64(),
    ));
    std::thread::sleep(SETTLES);
    figures.extend(memory(tandem, servers, "after the start"));
    figures
}

/// The number of events that a finished rebuild says it read. Each of its targets reads its own topic.
fn events_read(rebuild: &mut Process) -> f64 {
    let (said, _) = rebuild.all_output();
    let read = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once(": ")?;
        let (read, _) = rest.split_once(" events read")?;
        Some(read.parse::<f64>().unwrap())
    });
    let read: f64 = read.sum();
    assert!(read > 0.0, "{said}");
    read
}

fn memory(tandem: &Tandem, servers: &[(&'static str, u32)], when: &str) -> Vec<Figure> {
    let ours = ["broker", "accounts", "orders", "router"]
        .into_iter()
        .filter_map(|service| Some((service, tandem.child(service)?)));
    ours.chain(servers.iter().copied())
        .map(|(process, id)| {
            takes(
                format!("memory of {process} {when}"),
                "MiB",
                resident_mib(id),
            )
        })
        .collect()
}

/// Creations per second. They create new customers for this measurement.
fn creations(runtime: &Runtime, tandem: &Tandem, size: usize) -> f64 {
    let client = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    let next = Arc::new(AtomicUsize::new(0));
    let round = |_| {
        let (client, next) = (Arc::clone(&client), Arc::clone(&next));
        let begun = Instant::now();
        let times = call_times(runtime, 64, TIME, move |_| {
            let client = Arc::clone(&client);
            let number = next.fetch_add(1, Ordering::Relaxed);
            async move {
                let input = customer_input(&format!("more-{size}-{number}"), "Lovelace");
                client.ask(json!({"input": input})).await;
            }
        });
        let created = times.len() as f64 / begun.elapsed().as_secs_f64();
        tandem.published(&Client::new());
        created
    };
    median((0..ROUNDS).map(round).collect())
}

/// The p50 in µs of reads of customers from the whole range.
fn reads(runtime: &Runtime, url: &str, query: &'static str, size: usize) -> f64 {
    let client = Arc::new(LeanClient::new(url, query));
    let round = |round: usize| {
        let client = Arc::clone(&client);
        let mut times = call_times(runtime, 1, TIME, move |number| {
            let client = Arc::clone(&client);
            // A step by a prime reaches every part of the data and never reads a customer twice in a row. Each round
            // reads others.
            let id = id((round * APART + number) * 7_919 % size);
            async move { drop(client.ask(json!({"id": id})).await) }
        });
        times.sort_by(f64::total_cmp);
        percentile(&times, 0.5)
    };
    median((0..ROUNDS).map(round).collect())
}

async fn page(client: &LeanClient, first: usize, after: &Value) -> Value {
    let answer = client.ask(json!({"first": first, "after": after})).await;
    let mut answer: Value = serde_json::from_slice(&answer).unwrap();
    answer["data"]["customers"]["pageInfo"].take()
}

/// The time of the first and of the last page in µs, by their cursors.
async fn first_and_last_page(client: &LeanClient) -> (f64, f64) {
    let (mut after, mut before_last) = (Value::Null, Value::Null);
    loop {
        let mut info = page(client, WALK, &after).await;
        if info["hasNextPage"] != true {
            break;
        }
        before_last = info["endCursor"].take();
        after.clone_from(&before_last);
    }
    let timed = async |after: &Value| {
        let mut times = Vec::new();
        for _ in 0..PAGES {
            let begun = Instant::now();
            page(client, PAGE, after).await;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        median(times)
    };
    (timed(&Value::Null).await, timed(&before_last).await)
}
