//! What a change costs on its whole way, beside floors measured in the same run: bare commits, bare driver calls.
//!
//!     cargo bench --bench path                 embedded store and broker
//!     cargo bench --bench path -- servers      real MongoDB and Kafka too (tests/backends/install.sh)
//!     cargo bench --bench path -- servers alone     only there
//!
//! Ratios count; absolute times say little on a shared machine. Ours and the floor are measured in turns, and the median
//! of the rounds is shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mongodb::bson::{Document, doc};
use redb::TableDefinition;
use serde_json::json;
use tandem_backends::{Kafka, KafkaOptions, Mongo};
use tokio::runtime::Runtime;

mod bare;
mod processor;
mod shared;
#[path = "../tests/system/support/mod.rs"]
mod support;

use bare::{BareLoop, BareWrites};
use processor::{Processes, Spent};
use shared::{LeanClient, median};
use support::{
    Tandem,
    graph::{CREATE, customer_input},
};

/// An odd number; enough of them that a burst of others' work on a shared machine meets only some.
const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(3);
/// Rounds of load before real servers are measured: Kafka's JVM compiles itself for its first minutes, on the processors
/// that everything shares.
const WARM_UP: usize = 30;
const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("floor");
const VISIBLE: &str = "query($id: ID!) { orderingCustomer(id: $id, minRevision: 1) { id } }";

static NEXT: AtomicU64 = AtomicU64::new(0);

fn next_id() -> String {
    format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn main() {
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    let (servers, alone) = (has("servers"), has("alone"));
    let runtime = Runtime::new().unwrap();
    if !(servers && alone) {
        embedded(&runtime);
    }
    if servers {
        on_servers(&runtime);
    } else {
        println!("\nreal servers: left out; cargo bench --bench path -- servers");
    }
}

/// What was done in a round.
struct Round {
    calls: u64,
    seconds: f64,
}

impl Round {
    fn per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }
}

/// A round of calls of `work` with so many in flight.
fn load<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    in_flight: usize,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> Round {
    let work = Arc::new(work);
    let begun = Instant::now();
    let calls: u64 = runtime.block_on(async {
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let work = Arc::clone(&work);
                tokio::spawn(async move {
                    let mut done = 0;
                    while begun.elapsed() < ROUND {
                        work().await;
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        sum
    });
    Round {
        calls,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Prints the medians of both and of their ratio, round by round.
fn show(what: &str, unit: &str, rounds: &[(f64, f64)]) {
    let ours = median(rounds.iter().map(|round| round.0).collect());
    let floor = median(rounds.iter().map(|round| round.1).collect());
    let ratio = median(rounds.iter().map(|round| round.0 / round.1).collect());
    println!("{what:<58} {ours:>10.1} {floor:>10.1} {unit:<4} ratio {ratio:>6.2}");
}

fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part) as usize;
    sorted[place.min(sorted.len() - 1)]
}

/// Creates one customer more each time.
fn creating(
    client: &Arc<LeanClient>,
) -> impl Fn() -> futures::future::BoxFuture<'static, ()> + Send + Sync + use<> {
    let client = Arc::clone(client);
    move || {
        let client = Arc::clone(&client);
        Box::pin(async move {
            let input = customer_input(&next_id(), "Lovelace");
            client.ask(json!({"input": input})).await;
        })
    }
}

/// Waits until all that was created is through to the replica.
fn through(tandem: &Tandem) {
    let asking = support::Client::new();
    tandem.published(&asking);
    tandem.customer(&asking, &next_id());
}

/// Milliseconds from sending a creation to its being readable in orders, sorted.
fn create_to_visible(runtime: &Runtime, tandem: &Tandem, samples: usize) -> Vec<f64> {
    through(tandem);
    until_visible(runtime, tandem, 0..samples)
}

/// The same while so many others create.
fn create_to_visible_beside(
    runtime: &Runtime,
    tandem: &Tandem,
    in_flight: usize,
    others: &Arc<LeanClient>,
) -> Vec<f64> {
    std::thread::scope(|scope| {
        let others = scope.spawn(|| load(runtime, in_flight, creating(others)));
        let turns = std::iter::from_fn(|| (!others.is_finished()).then_some(()));
        until_visible(runtime, tandem, turns)
    })
}

fn until_visible<T>(
    runtime: &Runtime,
    tandem: &Tandem,
    turns: impl Iterator<Item = T>,
) -> Vec<f64> {
    let accounts = LeanClient::new(&tandem.accounts_url("/graphql"), CREATE);
    let orders = LeanClient::new(&tandem.orders_url("/graphql"), VISIBLE);
    let mut times: Vec<f64> = turns
        .map(|_| {
            runtime.block_on(async {
                let id = next_id();
                let begun = Instant::now();
                let input = customer_input(&id, "Lovelace");
                accounts.ask(json!({"input": input})).await;
                orders.ask(json!({"id": id})).await;
                begun.elapsed().as_secs_f64() * 1_000.0
            })
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn resident_mib(process: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib: f64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default();
    kib / 1_024.0
}

fn embedded(runtime: &Runtime) {
    println!("# embedded store and broker");
    let begun = Instant::now();
    let tandem = Tandem::start();
    println!("start to ready: {:.2} s", begun.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(5));
    for service in ["broker", "accounts", "orders", "router"] {
        let process = tandem.child(service).unwrap();
        println!(
            "resident, idle: {service:<9} {:>6.1} MiB",
            resident_mib(process)
        );
    }

    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    // The same bytes as a stored customer with its pending event: one durable commit each.
    let directory = tempfile::tempdir_in(tandem.data_dir()).unwrap();
    let database = Arc::new(redb::Database::create(directory.path().join("floor.redb")).unwrap());
    let bytes = vec![b'x'; 2_600];
    println!("\n{:<58} {:>10} {:>10}", "", "ours", "floor");
    for in_flight in [1, 64] {
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let ours = load(runtime, in_flight, creating(&accounts)).per_second();
                let begun = Instant::now();
                let mut commits = 0;
                while begun.elapsed() < ROUND {
                    let transaction = database.begin_write().unwrap();
                    transaction
                        .open_table(TABLE)
                        .unwrap()
                        .insert(next_id().as_str(), bytes.as_slice())
                        .unwrap();
                    transaction.commit().unwrap();
                    commits += 1;
                }
                (ours, f64::from(commits) / begun.elapsed().as_secs_f64())
            })
            .collect();
        show(
            &format!("createCustomer over HTTP, {in_flight} in flight, to one bare commit each"),
            "/s",
            &rounds,
        );
    }
    let times = create_to_visible(runtime, &tandem, 500);
    println!(
        "create to visible in orders: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99)
    );
}

fn on_servers(runtime: &Runtime) {
    println!("\n# MongoDB (one node, majority, journaled) and Kafka (one node, acks=all)");
    let (mongo, kafka) = runtime.block_on(async {
        let (mongo, kafka) =
            tokio::join!(Mongo::start(1), Kafka::start(KafkaOptions::for_measuring()));
        (mongo.unwrap(), kafka.unwrap())
    });
    let tandem = Tandem::builder()
        .flag("--mongodb-uri")
        .flag(mongo.uri())
        .flag("--kafka-brokers")
        .flag(kafka.bootstrap())
        .start();
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    let bare = runtime.block_on(bare::client(&mongo));
    // A customer whose event is pending can be seen only under load.
    let floor = runtime.spawn({
        let bare = bare.clone();
        async move {
            let of = bare.database("accounts").collection("customer.accounts");
            let pending = doc! { "oldestPending": { "$exists": true } };
            BareWrites::new(&bare, "customers", &of, pending).await
        }
    });
    for _ in 0..WARM_UP {
        load(runtime, 16, creating(&accounts));
    }
    let floor = runtime.block_on(floor).unwrap();
    through(&tandem);
    println!("{:<58} {:>10} {:>10}", "", "ours", "floor");
    let child = |service| tandem.child(service).unwrap();
    let processes = Processes::new([
        ("client", std::process::id()),
        ("accounts", child("accounts")),
        ("orders", child("orders")),
        ("mongod", mongo.process_id(0).unwrap()),
        ("Kafka", kafka.process_id(0).unwrap()),
    ]);
    for in_flight in [1, 16, 64] {
        let (mut of_ours, mut of_bare) = (Spent::default(), Spent::default());
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let before = processes.used();
                let ours = load(runtime, in_flight, creating(&accounts));
                // What the services still have to do belongs to ours, and must not slow the floor.
                through(&tandem);
                let between = processes.used();
                let floor = floor.clone();
                let bare = load(runtime, in_flight, move || {
                    let floor = floor.clone();
                    async move { floor.write(&next_id()).await }
                });
                of_ours.add(&before, &between, ours.calls);
                of_bare.add(&between, &processes.used(), bare.calls);
                (ours.per_second(), bare.per_second())
            })
            .collect();
        show(
            &format!("createCustomer over HTTP, {in_flight} in flight, to findAndModify"),
            "/s",
            &rounds,
        );
        processes.show("ours", &of_ours);
        processes.show("floor", &of_bare);
    }
    let others = |_| create_to_visible_beside(runtime, &tandem, 64, &accounts);
    let mut beside: Vec<f64> = (0..ROUNDS).flat_map(others).collect();
    beside.sort_by(f64::total_cmp);
    println!(
        "create to visible while 64 others create: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&beside, 0.5),
        percentile(&beside, 0.99)
    );
    // Both loops one at a time, in turns: the way over the services, and the bare drivers doing the same four steps.
    let replica = runtime.block_on(async {
        let of = bare.database("orders").collection("customer.orders");
        BareWrites::new(&bare, "replica", &of, Document::new()).await
    });
    let body = customer_input(&next_id(), "Lovelace").to_string();
    let bare = BareLoop::new(runtime, &kafka, floor, replica, body);
    let ids = |samples| std::iter::repeat_with(next_id).take(samples);
    bare.run(runtime, ids(20));
    let mut rounds = Vec::new();
    let (mut ours_all, mut bare_all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = create_to_visible(runtime, &tandem, 100);
        let bare = bare.run(runtime, ids(100));
        rounds.push((percentile(&ours, 0.5), percentile(&bare, 0.5)));
        ours_all.extend(ours);
        bare_all.extend(bare);
    }
    show(
        "create to visible, p50, to write-produce-consume-write",
        "ms",
        &rounds,
    );
    ours_all.sort_by(f64::total_cmp);
    bare_all.sort_by(f64::total_cmp);
    println!(
        "p99: ours {:.1} ms, bare {:.1} ms",
        percentile(&ours_all, 0.99),
        percentile(&bare_all, 0.99)
    );
}
