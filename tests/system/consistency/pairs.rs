//! Pairs of a write and a read with the write's token, each on any instance, while instances are killed. No read may
//! return a state from before its write.
//!
//! `TANDEM_CONSISTENCY_PAIRS` sets how many (2,000 by default). `TANDEM_CONSISTENCY_SEED` repeats the choices. The
//! progress is printed every few seconds.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tandem_backends::require;

use super::HEADER;
use crate::support::{
    Signal,
    fleet::{Fleet, Instance, graphql},
    graph::{ADVANCE, CREATE, PLACE, UPDATE, customer_input, order_input},
    workload::Random,
};

/// Concurrent clients: one per thousand pairs, within these bounds. A client that waits for a killed instance, or for
/// the partitions that it was reading, delays no other.
const CLIENTS: std::ops::RangeInclusive<u64> = 8..=64;
/// Processes that are killed during the run, at equal shares of the pairs. The run continues until all kills are done.
const KILLS: u64 = 12;
/// In a long run there is also a kill whenever this much time has passed since the last one.
const BETWEEN_KILLS: Duration = Duration::from_secs(30);
/// Pairs must continue within this time after a kill, however slow the machine is.
const GOES_ON: Duration = Duration::from_secs(300);
/// How often the progress is printed.
const REPORTS: Duration = Duration::from_secs(5);

const READ_ACCOUNTS: &str =
    "query($id: ID!) { customer(id: $id) { revision changes(first: 100) { nodes { revision } } } }";
const READ_REPLICA: &str = "query($id: ID!) { orderingCustomer(id: $id) { replica { revision } } }";
const READ_ORDER: &str =
    "query($id: ID!) { order(id: $id) { revision changes(first: 100) { nodes { revision } } } }";

#[derive(Default)]
struct Counts {
    pairs: AtomicU64,
    kills: AtomicU64,
    /// Writes without a response. They are not pairs.
    unanswered: AtomicU64,
    /// Reads that returned an error because the instance lags behind, or had no response. They are repeated.
    asked_again: AtomicU64,
    stale: AtomicU64,
    /// Set when there were enough pairs and all kills.
    is_over: AtomicBool,
}

impl Counts {
    /// Prints the progress, and the rate since the last report.
    async fn report(self: Arc<Self>) {
        let mut before = 0;
        loop {
            tokio::time::sleep(REPORTS).await;
            let pairs = self.pairs.load(Ordering::Relaxed);
            println!("{self}: {} pairs/s", (pairs - before) / REPORTS.as_secs());
            before = pairs;
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        write!(
            to,
            "{} pairs, {} stale, {} kills, {} writes unanswered, {} reads asked again",
            of(&self.pairs),
            of(&self.stale),
            of(&self.kills),
            of(&self.unanswered),
            of(&self.asked_again),
        )
    }
}

/// A client, with its addresses.
struct Reader {
    http: reqwest::Client,
    accounts: Vec<String>,
    orders: Vec<String>,
    counts: Arc<Counts>,
    random: Random,
    name: u64,
    /// Customers and orders, each with its last acknowledged revision.
    customers: Vec<(String, i64)>,
    placed: Vec<(String, i64)>,
    token: Option<String>,
}

struct Written {
    is_order: bool,
    id: String,
    revision: i64,
}

impl Reader {
    async fn run(mut self) {
        while !self.counts.is_over.load(Ordering::Relaxed) {
            match self.write().await {
                Some(written) => {
                    self.read(&written).await;
                    self.counts.pairs.fetch_add(1, Ordering::Relaxed);
                }
                None => {
                    self.counts.unanswered.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Sends an operation to any of these addresses. Returns the data, if there are no errors, and the token.
    async fn send(
        &mut self,
        to_orders: bool,
        query: &str,
        variables: Value,
    ) -> Result<(Value, Option<String>), String> {
        let urls = if to_orders {
            &self.orders
        } else {
            &self.accounts
        };
        let url = &urls[self.random.below(urls.len())];
        let mut request = self
            .http
            .post(url)
            .header("content-type", "application/json")
            .timeout(Duration::from_secs(20))
            .body(json!({"query": query, "variables": variables}).to_string());
        if let Some(token) = &self.token {
            request = request.header(HEADER, token);
        }
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let token = answer.headers().get(HEADER);
        let token = token.and_then(|it| Some(it.to_str().ok()?.to_owned()));
        let text = answer.text().await.map_err(|error| error.to_string())?;
        let body: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
        if body["errors"].is_null() && body["data"].is_object() {
            return Ok((body["data"].clone(), token));
        }
        Err(text)
    }

    async fn write(&mut self) -> Option<Written> {
        let choice = self.random.below(100);
        let number = self.random.next();
        let mut change = None;
        let (to_orders, query, variables) = if self.customers.is_empty() || choice < 25 {
            let id = format!("{}-{number:x}", self.name);
            (
                false,
                CREATE,
                json!({"input": customer_input(&id, "Lovelace")}),
            )
        } else if choice < 60 || self.placed.is_empty() && choice >= 85 {
            let known = self.random.below(self.customers.len());
            change = Some(known);
            let name = json!({"name": {"firstName": "Ada", "lastName": format!("L{number}")}});
            let id = &self.customers[known].0;
            (false, UPDATE, json!({"id": id, "input": name}))
        } else if choice < 85 {
            let id = &self.customers[self.random.below(self.customers.len())].0;
            (true, PLACE, json!({"input": order_input(id)}))
        } else {
            let known = self.random.below(self.placed.len());
            change = Some(known);
            let id = &self.placed[known].0;
            (true, ADVANCE, json!({"id": id, "to": "CONFIRMED"}))
        };
        let sent = self.send(to_orders, query, variables).await;
        if to_orders && let Some(known) = change {
            // Each order is advanced by one step only.
            self.placed.swap_remove(known);
        }
        let (data, token) = sent.ok()?;
        let written = data.as_object()?.values().next()?;
        let (is_order, node) = match written.get("order") {
            Some(order) => (true, order),
            None => (false, written.get("customer")?),
        };
        let (id, revision) = (node["id"].as_str()?.to_owned(), node["revision"].as_i64()?);
        self.token = Some(token.expect("an answered write has a token"));
        match change {
            Some(known) if !is_order => self.customers[known].1 = revision,
            Some(_) => {}
            None if is_order => self.placed.push((id.clone(), revision)),
            None => self.customers.push((id.clone(), revision)),
        }
        Some(Written {
            is_order,
            id,
            revision,
        })
    }

    /// Reads what was written, until there is a response. An error because the instance lags behind is not a stale
    /// read.
    async fn read(&mut self, written: &Written) {
        let (to_orders, query, field) = match (written.is_order, self.random.below(2)) {
            (true, _) => (true, READ_ORDER, "order"),
            (false, 0) => (true, READ_REPLICA, "orderingCustomer"),
            (false, _) => (false, READ_ACCOUNTS, "customer"),
        };
        loop {
            let variables = json!({"id": written.id});
            match self.send(to_orders, query, variables).await {
                Ok((data, _)) => {
                    if let Some(fault) = stale(&data[field], written.revision) {
                        println!("STALE: {} {fault}: {data}", written.id);
                        self.counts.stale.fetch_add(1, Ordering::Relaxed);
                    }
                    return;
                }
                Err(_) => {
                    self.counts.asked_again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// The part of a response that is older than this revision.
fn stale(shown: &Value, revision: i64) -> Option<String> {
    let state = shown
        .get("revision")
        .unwrap_or(&shown["replica"]["revision"]);
    if state.as_i64().is_none_or(|state| state < revision) {
        return Some(format!("is shown at {state}, not {revision}"));
    }
    let trail = shown["changes"]["nodes"].as_array()?;
    // The query asks only for the first hundred entries.
    let newest = trail.iter().filter_map(|it| it["revision"].as_i64()).max();
    (newest.unwrap_or(0) < revision.min(100))
        .then(|| format!("has an audit trail to {newest:?}, not {revision}"))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn no_read_with_the_token_of_a_write_is_older_while_instances_are_killed() {
    require!(mongod, kafka);
    let pairs = setting("TANDEM_CONSISTENCY_PAIRS", 2_000);
    let seed = setting("TANDEM_CONSISTENCY_SEED", 24);
    let fleet = Fleet::new();
    let mut instances: Vec<Instance> = ["accounts", "accounts", "orders", "orders"]
        .map(|service| fleet.instance(service))
        .into();
    for (accounts, orders) in [(0, 2), (1, 3)] {
        let gateway = fleet.gateway(&instances[accounts].url, &instances[orders].url);
        instances.push(gateway);
    }
    let of = |members: &[usize]| {
        let members: Vec<&Instance> = members.iter().map(|it| &instances[*it]).collect();
        graphql(&members)
    };
    let (accounts, orders) = (of(&[0, 1, 4, 5]), of(&[2, 3, 4, 5]));
    let counts = Arc::new(Counts::default());
    let begun = Instant::now();
    let clients = (pairs / 1_000).clamp(*CLIENTS.start(), *CLIENTS.end());
    let clients: Vec<_> = (0..clients)
        .map(|name| {
            let reader = Reader {
                http: fleet.http.clone(),
                accounts: accounts.clone(),
                orders: orders.clone(),
                counts: Arc::clone(&counts),
                random: Random::new(seed.wrapping_mul(1_000).wrapping_add(name)),
                name,
                customers: Vec::new(),
                placed: Vec::new(),
                token: None,
            };
            fleet.runtime.spawn(reader.run())
        })
        .collect();
    let reports = fleet.runtime.spawn(Arc::clone(&counts).report());
    let mut random = Random::new(seed);
    let (mut kills, mut killed) = (0, Instant::now());
    let (mut done, mut went_on) = (0, Instant::now());
    while done < pairs || kills < KILLS {
        let share = pairs * (kills + 1) / (KILLS + 1);
        if kills < KILLS && done >= share || killed.elapsed() > BETWEEN_KILLS {
            let victim = random.below(instances.len());
            let signal = [Signal::KILL, Signal::KILL, Signal::TERM][random.below(3)];
            fleet.restart(&mut instances[victim], signal);
            killed = Instant::now();
            kills = counts.kills.fetch_add(1, Ordering::Relaxed) + 1;
        }
        std::thread::sleep(Duration::from_millis(10));
        let now = counts.pairs.load(Ordering::Relaxed);
        if now > done {
            (done, went_on) = (now, Instant::now());
        }
        let failed = clients.iter().any(tokio::task::JoinHandle::is_finished);
        assert!(!failed, "a client failed: {counts}");
        assert!(went_on.elapsed() < GOES_ON, "no pair goes on: {counts}");
    }
    counts.is_over.store(true, Ordering::Relaxed);
    fleet.runtime.block_on(async {
        for client in clients {
            client.await.unwrap();
        }
    });
    reports.abort();
    println!("{counts}, in {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(counts.stale.load(Ordering::Relaxed), 0);
}
