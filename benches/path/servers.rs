//! The way of a creation on real MongoDB and Kafka.

use std::sync::Arc;

use mongodb::bson::{Document, doc};
use tandem_backends::Servers;
use tokio::runtime::Runtime;

use crate::{
    bare::{BareLoop, BareWrites},
    report::{self, Bars, say},
    rounds::{ROUNDS, load, show},
    shared::{LeanClient, Processes, Spent, percentile},
    support::{
        Tandem,
        graph::{CREATE, customer_input},
    },
    visible::{create_to_visible, create_to_visible_beside, creating, next_id, through},
};

/// Rounds of load before real servers are measured: Kafka's JVM compiles itself for its first minutes, on the processors
/// that everything shares.
const WARM_UP: usize = 30;

/// Creates, until the servers are as fast as they get.
pub fn warm_up(runtime: &Runtime, tandem: &Tandem) {
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    for _ in 0..WARM_UP {
        load(runtime, 16, creating(&accounts));
    }
}

/// Measures it.
pub fn creations(runtime: &Runtime, tandem: &Tandem, servers: &Servers, bare: &mongodb::Client) {
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    // A customer whose event is pending can be seen only under load.
    let floor = runtime.spawn({
        let bare = bare.clone();
        async move {
            let of = bare.database("accounts").collection("customer.accounts");
            let pending = doc! { "oldestPending": { "$exists": true } };
            BareWrites::new(&bare, "customers", &of, pending).await
        }
    });
    warm_up(runtime, tandem);
    let floor = runtime.block_on(floor).unwrap();
    through(tandem);
    say!("{:<58} {:>10} {:>10}", "", "ours", "floor");
    let child = |service| tandem.child(service).unwrap();
    let processes = Processes::new([
        ("client", std::process::id()),
        ("accounts", child("accounts")),
        ("orders", child("orders")),
        ("mongod", servers.mongo.process_id(0).unwrap()),
        ("Kafka", servers.kafka.process_id(0).unwrap()),
    ]);
    let mut groups = Vec::new();
    for in_flight in [1, 16, 64] {
        let (mut of_ours, mut of_bare) = (Spent::default(), Spent::default());
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| {
                let before = processes.used();
                let ours = load(runtime, in_flight, creating(&accounts));
                // What the services still have to do belongs to ours, and must not slow the floor.
                through(tandem);
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
        let medians = show(
            &format!("createCustomer over HTTP, {in_flight} in flight, to findAndModify"),
            "/s",
            &rounds,
        );
        groups.push((format!("{in_flight} in flight"), medians.to_vec()));
        say!("{}", processes.told("ours", &of_ours));
        say!("{}", processes.told("floor", &of_bare));
    }
    report::bars(
        "creations",
        &Bars {
            title: "Customers created a second, MongoDB and Kafka on the same processors",
            unit: "a second",
            series: &[
                "createCustomer, with event, replica and audit trail",
                "bare findAndModify of the same document",
            ],
            groups,
        },
    );
    let others = |_| create_to_visible_beside(runtime, tandem, 64, &accounts);
    let mut beside: Vec<f64> = (0..ROUNDS).flat_map(others).collect();
    beside.sort_by(f64::total_cmp);
    say!(
        "create to visible while 64 others create: p50 {:.1} ms, p99 {:.1} ms",
        percentile(&beside, 0.5),
        percentile(&beside, 0.99)
    );
    // Both loops one at a time, in turns: the way over the services, and the bare drivers doing the same four steps.
    let replica = runtime.block_on(async {
        let of = bare.database("orders").collection("customer.orders");
        BareWrites::new(bare, "replica", &of, Document::new()).await
    });
    let body = customer_input(&next_id(), "Lovelace").to_string();
    let bare = BareLoop::new(runtime, &servers.kafka, floor, replica, body);
    let ids = |samples| std::iter::repeat_with(next_id).take(samples);
    bare.run(runtime, ids(20));
    let mut rounds = Vec::new();
    let (mut ours_all, mut bare_all) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ours = create_to_visible(runtime, tandem, 100);
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
    say!(
        "p99: ours {:.1} ms, bare {:.1} ms",
        percentile(&ours_all, 0.99),
        percentile(&bare_all, 0.99)
    );
}
