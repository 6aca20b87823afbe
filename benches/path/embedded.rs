//! The way of a creation on the embedded store and broker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::TableDefinition;
use tokio::runtime::Runtime;

use crate::{
    rounds::{ROUND, ROUNDS, load, show},
    shared::{LeanClient, percentile, resident_mib},
    support::{Tandem, graph::CREATE},
    visible::{create_to_visible, creating, next_id},
};

const TABLE: TableDefinition<'static, &'static str, &'static [u8]> = TableDefinition::new("floor");

/// Measures it, and answers the system that it was measured on.
pub fn embedded(runtime: &Runtime) -> Tandem {
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
    tandem
}
