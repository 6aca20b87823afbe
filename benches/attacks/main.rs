//! What hostile clients cost an honest client, and how much memory they take. Clients with another address run each
//! attack known from issue reports, and others of the same kinds, while one client keeps reading.
//!
//!     cargo bench --bench attacks                    all
//!     cargo bench --bench attacks -- fragments       only attacks whose name contains this word
//!
//! Attackers run in this process, on their own threads. In reality they would have their own machines, so here they
//! only get processor time that nobody else needs (nice 19). Their cost is then what the system spends on them. The
//! first line shows the cost of a flood of small legal queries, because a flood alone takes processor time.
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

mod hostile;
mod messages;
#[path = "../report/mod.rs"]
mod report;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use hostile::{Attack, attacks};
use report::{Bars, Words, say};
use shared::{LeanClient, percentile, resident_mib};
use support::{
    Client, Tandem,
    graph::{CREATE, PLACE, customer_input, order_input},
};

/// How long the honest client is measured, with and without an attack.
const WATCHED: Duration = Duration::from_secs(3);
/// The pause between two reads of the honest client.
const PAUSE: Duration = Duration::from_millis(5);
/// Concurrent attackers.
const ATTACKERS: usize = 4;
const CUSTOMER: &str =
    "query($id: ID!) { customer(id: $id) { id name { firstName lastName } revision } }";

/// The honest client's p99 in milliseconds, and the number of its failed reads.
async fn honest(client: &Arc<LeanClient>, watched: Duration) -> (f64, usize) {
    let (mut times, mut failed) = (Vec::new(), 0);
    let begun = Instant::now();
    while begun.elapsed() < watched {
        let asked = Instant::now();
        let asking = Arc::clone(client);
        // Every failed read is counted, and the next one is made as usual.
        let answer = tokio::spawn(async move { asking.ask(json!({"id": "1"})).await }).await;
        // A read that stalls also stands for the reads that would have been sent meanwhile ("coordinated omission", Gil
        // Tene, 2013).
        let mut waited = asked.elapsed().as_secs_f64() * 1e3;
        times.push(waited);
        while waited > 2.0 * PAUSE.as_secs_f64() * 1e3 {
            waited -= PAUSE.as_secs_f64() * 1e3;
            times.push(waited);
        }
        let answer: Value = answer.map_or(Value::Null, |answer| {
            serde_json::from_slice(&answer).unwrap_or_default()
        });
        if answer["data"]["customer"]["id"] != "1" {
            failed += 1;
        }
        tokio::time::sleep(PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    (percentile(&times, 0.99), failed)
}

/// The peak memory of each process while this ran, in MiB.
struct Peak {
    stop: Arc<AtomicBool>,
    most: Arc<Mutex<Vec<f64>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch(processes: Vec<u32>) -> Self {
        let (stop, most) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(vec![0.0; processes.len()])),
        );
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (most, process) in seen.lock().unwrap().iter_mut().zip(&processes) {
                    *most = resident_mib(*process).max(*most);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self { stop, most, thread }
    }

    fn end(self) -> Vec<f64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        Arc::try_unwrap(self.most).unwrap().into_inner().unwrap()
    }
}

/// Separate threads for both sides, so that an honest client does not wait for the attackers' work.
struct Threads {
    honest: Runtime,
    hostile: Runtime,
}

/// Prints a row. Returns the honest client's p99 before and during the attack.
fn attacked(
    threads: &Threads,
    tandem: &Tandem,
    client: &Arc<LeanClient>,
    attack: &Attack,
) -> [f64; 2] {
    let Threads {
        honest: runtime,
        hostile,
    } = threads;
    let processes = ["router", "accounts", "orders"].map(|name| tandem.child(name).unwrap());
    let before = runtime.block_on(honest(client, WATCHED));
    let peak = Peak::watch(processes.to_vec());
    let stop = Arc::new(AtomicBool::new(false));
    let address = tandem.gateway_url("").replace("http://", "");
    let attackers: Vec<_> = (0..ATTACKERS)
        .map(|number| hostile.spawn((attack.by)(address.clone(), number, Arc::clone(&stop))))
        .collect();
    let meanwhile = runtime.block_on(async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        honest(client, WATCHED).await
    });
    stop.store(true, Ordering::Relaxed);
    let sent: u64 = attackers
        .into_iter()
        .map(|attacker| {
            let ended = hostile
                .block_on(async { tokio::time::timeout(Duration::from_secs(10), attacker).await });
            ended.map_or(0, |sent| sent.unwrap_or(0))
        })
        .sum();
    let most = peak.end();
    let alive = processes.iter().all(|process| support::is_alive(*process));
    say!(
        "{:<34} {:>8.2} {:>8.2} {:>6.1} {:>6} {:>8} {:>7.0} {:>8.0} {:>7.0}{}",
        attack.name,
        before.0,
        meanwhile.0,
        meanwhile.0 / before.0,
        before.1 + meanwhile.1,
        sent,
        most[0],
        most[1],
        most[2],
        if alive { "" } else { "  A PROCESS DIED" },
    );
    [before.0, meanwhile.0]
}

fn main() {
    let attacks = attacks();
    let names: Vec<&str> = attacks.iter().map(|attack| attack.name).collect();
    let words = Words::within(&names);
    let threads = Threads {
        honest: Builder::new_current_thread().enable_all().build().unwrap(),
        hostile: Builder::new_multi_thread()
            .enable_all()
            .on_thread_start(|| {
                rustix::process::nice(19).unwrap();
            })
            .build()
            .unwrap(),
    };
    report::begin(
        "attacks",
        "An honest client beside hostile ones",
        words.is_empty(),
    );
    let tandem = Tandem::start();
    let known = Client::new();
    let gateway = tandem.gateway_url("/graphql");
    known.data(
        &gateway,
        CREATE,
        json!({"input": customer_input("1", "Lovelace")}),
    );
    tandem.replicated(&known, "1", 1);
    for _ in 0..20 {
        known.data(&gateway, PLACE, json!({"input": order_input("1")}));
    }
    let client = Arc::new(LeanClient::new(&gateway, CUSTOMER));
    say!(
        "# an honest client's p99 in milliseconds, and the most memory of gateway, accounts and orders in MiB"
    );
    say!(
        "{:<34} {:>8} {:>8} {:>6} {:>6} {:>8} {:>7} {:>8} {:>7}",
        "",
        "before",
        "during",
        "ratio",
        "failed",
        "attacks",
        "gateway",
        "accounts",
        "orders"
    );
    let mut groups = Vec::new();
    for attack in attacks {
        if words.wants(attack.name) {
            let p99 = attacked(&threads, &tandem, &client, &attack);
            groups.push((attack.name.to_owned(), p99.to_vec()));
        }
    }
    report::bars(
        "honest",
        &Bars {
            title: "The honest client's p99",
            unit: "ms",
            series: &["alone", "beside the attack"],
            groups,
        },
    );
    report::end();
}
