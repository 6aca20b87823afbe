//! The way of a creation on the embedded store and broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::TableDefinition;
use tokio::runtime::Runtime;

use crate::{
    report::{self, Bars, say},
    rounds::{ROUND, ROUNDS, load, show},
    shared::{LeanClient, Processes, percentile, resident_mib},
    support::{Tandem, graph::CREATE},
    visible::{create_to_visible, creating, next_id},
};

/// How long nothing is asked for.
const IDLE: Duration = Duration::from_secs(30);

const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("floor");

/// What each process takes while nobody asks for anything.
fn idle(tandem: &Tandem) {
    let services = ["broker", "accounts", "orders", "router"];
    let ids = services.map(|service| tandem.child(service).unwrap());
    let processes = Processes::new(services.into_iter().zip(ids));
    let (before, begun) = (processes.used(), Instant::now());
    std::thread::sleep(IDLE);
    let after = processes.used();
    let seconds = begun.elapsed().as_secs_f64();
    for (number, service) in services.iter().enumerate() {
        say!(
            "idle: {service:<9} {:>6.1} MiB resident, {:>6.2} ms of processor time a second",
            resident_mib(ids[number]),
            (after[number] - before[number]) / 1_000.0 / seconds
        );
    }
}

/// Measures it, and answers the system that it was measured on.
pub fn embedded(runtime: &Runtime) -> Tandem {
    let begun = Instant::now();
    let tandem = Tandem::start();
    say!("start to ready: {:.2} s", begun.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(5));
    idle(&tandem);

    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    // The same bytes as a stored customer with its pending event: one durable commit each.
    let directory = tempfile::tempdir_in(tandem.data_dir()).unwrap();
    let database = Arc::new(redb::Database::create(directory.path().join("floor.redb")).unwrap());
    let bytes = vec![b'x'; 2_600];
    say!("\n{:<58} {:>10} {:>10}", "", "ours", "floor");
    let mut groups = Vec::new();
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
        let medians = show(
            &format!("createCustomer over HTTP, {in_flight} in flight, to one bare commit each"),
            "/s",
            &rounds,
        );
        groups.push((format!("{in_flight} in flight"), medians.to_vec()));
    }
    report::bars(
        "creations-embedded",
        &Bars {
            title: "Customers created a second, embedded store and broker",
            unit: "a second",
            series: &["createCustomer", "a bare durable commit of redb"],
            groups,
        },
    );
    let times = create_to_visible(runtime, &tandem, 500);
    say!(
        "create to visible in orders: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99)
    );
    tandem
}
