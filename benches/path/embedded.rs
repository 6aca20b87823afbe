//! The path of a creation on the embedded store and broker.

use std::{sync::Arc, time::Instant};

use tokio::runtime::Runtime;

use crate::{
    bare_store::BareStore,
    report::{self, Bars, say},
    rounds::{ROUND, ROUNDS, load, show},
    shared::{LeanClient, percentile},
    support::{Tandem, graph::CREATE},
    visible::{create_to_visible, creating, through},
};

/// Measures the path.
pub fn creations(runtime: &Runtime, tandem: &Tandem) {
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    let floor = BareStore::new(tandem.data_dir());
    load(runtime, 64, creating(&accounts));
    through(tandem);
    say!("\n{:<58} {:>10} {:>10}", "", "ours", "floor");
    let mut groups = Vec::new();
    for in_flight in [1, 64] {
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let ours = load(runtime, in_flight, creating(&accounts)).per_second();
                // Work that the services still have in progress must not slow the floor.
                through(tandem);
                let begun = Instant::now();
                let mut commits = 0;
                while begun.elapsed() < ROUND {
                    floor.commit(1);
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
    let times = create_to_visible(runtime, tandem, 500);
    say!(
        "create to visible in orders: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&times, 0.5),
        percentile(&times, 0.99)
    );
}
