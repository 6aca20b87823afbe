//! The path of a creation on real MongoDB and Kafka.

use std::sync::Arc;

use mongodb::bson::{Document, doc};
use tandem_backends::Servers;
use tokio::runtime::Runtime;

use crate::{
    bare::{BareLoop, BareWrites},
    report::{self, Bars, say},
    rounds::{ROUNDS, Round, load, show},
    shared::{LeanClient, Processes, Spent, percentile},
    support::{
        Tandem,
        graph::{CREATE, customer_input},
    },
    visible::{create_to_visible, create_to_visible_beside, creating, next_id, through},
};

/// Rounds of load before real servers are measured. Kafka's JVM compiles code in its first minutes, on the processors
/// that everything shares.
const WARM_UP: usize = 30;

/// Creates customers until the servers have warmed up. Returns the writes that are the floor of a creation.
pub fn warm_up(runtime: &Runtime, tandem: &Tandem, bare: &mongodb::Client) -> BareWrites {
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    // A customer with a pending event exists only under load.
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
    through(tandem);
    runtime.block_on(floor).unwrap()
}

/// A round of the floor.
fn write(runtime: &Runtime, in_flight: usize, floor: &BareWrites) -> Round {
    let floor = floor.clone();
    load(runtime, in_flight, move || {
        let floor = floor.clone();
        async move { floor.write(&next_id()).await }
    })
}

/// Measures creations beside these writes: with the driver's default connections, and with one connection per call in
/// flight.
pub fn creations(
    runtime: &Runtime,
    tandem: &Tandem,
    servers: &Servers,
    bare: &mongodb::Client,
    [floor, wide]: [BareWrites; 2],
) {
    let accounts = Arc::new(LeanClient::new(&tandem.accounts_url("/graphql"), CREATE));
    // The client opens its connections one after the other, so this happens before the measurement.
    write(runtime, 64, &wide);
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
        let (mut of_ours, mut of_bare, mut of_wide) =
            (Spent::default(), Spent::default(), Spent::default());
        let rounds: Vec<[f64; 3]> = (0..ROUNDS)
            .map(|_| {
                let before = processes.used();
                let ours = load(runtime, in_flight, creating(&accounts));
                // Work that the services still have in progress counts as Tandem's, and must not slow the floor.
                through(tandem);
                let between = processes.used();
                let bare = write(runtime, in_flight, &floor);
                let then = processes.used();
                let widely = write(runtime, in_flight, &wide);
                of_ours.add(&before, &between, ours.calls);
                of_bare.add(&between, &then, bare.calls);
                of_wide.add(&then, &processes.used(), widely.calls);
                [ours, bare, widely].map(|round| round.per_second())
            })
            .collect();
        let beside = |what: &str, floor: usize| {
            let pairs: Vec<(f64, f64)> = rounds.iter().map(|it| (it[0], it[floor])).collect();
            show(
                &format!("createCustomer over HTTP, {in_flight} in flight, to {what}"),
                "/s",
                &pairs,
            )
        };
        let [ours, bare] = beside("findAndModify", 1);
        let [_, widely] = beside("it with 64 connections", 2);
        groups.push((format!("{in_flight} in flight"), vec![ours, bare, widely]));
        say!("{}", processes.told("ours", &of_ours));
        say!("{}", processes.told("floor", &of_bare));
        say!("{}", processes.told("with 64", &of_wide));
    }
    report::bars(
        "creations",
        &Bars {
            title: "Customers created a second, MongoDB and Kafka on the same processors",
            unit: "a second",
            series: &[
                "createCustomer, with event, replica and audit trail",
                "bare findAndModify of the same document, ten connections",
                "the same with 64 connections, as the services have",
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
    // Two loops in turns, one change at a time: through the services, and with bare drivers that do the same four
    // steps.
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
