//! One change for many watchers: the memory per watcher, and when the first, the middle and the last watcher receive
//! it.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio::runtime::Runtime;

use crate::{
    report::{self, Bars, say},
    run,
    shared::{LeanClient, median, percentile, resident_mib},
    support::{
        Client, Tandem,
        graph::{PLACE, order_input},
    },
    watchers::{Watchers, now},
};

/// An odd number, for the median.
const ROUNDS: usize = 9;
/// Earlier rounds, which warm up.
const WARM_UP: usize = 2;
/// The allocator returns freed memory within this time.
const SETTLES: Duration = Duration::from_secs(12);

/// The fractions of the watchers for which the chart shows when they have received a change.
const PARTS: [(&str, f64); 7] = [
    ("first", 0.0),
    ("10 %", 0.1),
    ("25 %", 0.25),
    ("50 %", 0.5),
    ("75 %", 0.75),
    ("90 %", 0.9),
    ("last", 1.0),
];

const BUSY: &str = "busy";
const QUIET: &str = "quiet";

/// Where the watchers connect, and how many share a socket.
struct Place<'a> {
    /// The name of the chart.
    chart: &'a str,
    port: u16,
    on_one: usize,
    /// The processes that hold state for each watcher.
    processes: &'a [&'a str],
}

/// Watchers that connect to orders directly.
pub fn on_orders(runtime: &Runtime, tandem: &Tandem, count: usize, on_one: usize) {
    let place = Place {
        chart: &format!("orders-{on_one}"),
        port: tandem.orders,
        on_one,
        processes: &["orders"],
    };
    let title = format!("{count} watchers of one customer on orders, {on_one} on each socket");
    measure(runtime, tandem, count, &place, &title);
}

/// Watchers that connect through the gateway, one socket each.
pub fn through_the_gateway(runtime: &Runtime, tandem: &Tandem, count: usize) {
    let place = Place {
        chart: "gateway",
        port: tandem.gateway,
        on_one: 1,
        processes: &["router", "orders"],
    };
    let title = format!("{count} watchers of one customer through the gateway, one socket each");
    measure(runtime, tandem, count, &place, &title);
}

fn measure(runtime: &Runtime, tandem: &Tandem, count: usize, place: &Place<'_>, title: &str) {
    say!("\n# {title}");
    let &Place {
        chart,
        port,
        on_one,
        processes,
    } = place;
    let client = Client::new();
    for customer in [BUSY, QUIET] {
        tandem.customer(&client, customer);
    }
    let orders = Arc::new(LeanClient::new(&tandem.orders_url("/graphql"), PLACE));
    let place_order = async |customer: &str| {
        orders.ask(json!({"input": order_input(customer)})).await;
    };
    // The first subscription allocates shared memory, which must not count as memory per watcher.
    let quiet = Watchers::open(runtime, port, 1, 1, |_| QUIET.to_owned());
    run(runtime, async {
        for number in 1..=20 {
            place_order(QUIET).await;
            quiet.wait_for(number).await;
        }
    });
    let held = || -> Vec<f64> {
        let id = |process: &&str| tandem.child(process).unwrap();
        processes.iter().map(|it| resident_mib(id(it))).collect()
    };
    std::thread::sleep(SETTLES);
    let before = held();
    let opening = now();
    let watchers = Watchers::open(runtime, port, count, on_one, |_| BUSY.to_owned());
    let opened = (now() - opening) as f64 / 1_000.0;
    say!(
        "opened in {opened:.0} ms, {:.0} a second",
        count as f64 / opened * 1_000.0
    );
    std::thread::sleep(SETTLES);
    let show = |when: &str| {
        for ((process, before), after) in processes.iter().zip(&before).zip(held()) {
            let each = (after - before) * 1_024.0 / count as f64;
            say!("{process}, {when}: {each:.1} KiB a subscription ({after:.0} MiB)");
        }
    };
    show("quiet");
    let alone = run(runtime, async {
        let mut alone = Vec::new();
        for _ in 0..ROUNDS {
            let (sent, had) = (now(), quiet.arrived());
            place_order(QUIET).await;
            quiet.wait_for(had + 1).await;
            alone.push(quiet.since(sent)[0]);
        }
        median(alone)
    });
    let mut rounds = Vec::new();
    for _ in 0..WARM_UP + ROUNDS {
        rounds.push(run(runtime, async {
            let (had, quiet_had) = (watchers.arrived(), quiet.arrived());
            let sent = now();
            place_order(BUSY).await;
            watchers.wait_for(had + 1).await;
            let quiet_sent = now();
            place_order(QUIET).await;
            watchers.wait_for(had + count).await;
            quiet.wait_for(quiet_had + 1).await;
            (watchers.since(sent), quiet.since(quiet_sent)[0])
        }));
        std::thread::sleep(Duration::from_millis(200));
    }
    rounds.drain(..WARM_UP);
    let of = |part: &dyn Fn(&[f64]) -> f64| {
        let mut each: Vec<f64> = rounds.iter().map(|(since, _)| part(since)).collect();
        each.sort_by(f64::total_cmp);
        format!(
            "{:.0} ({:.0} to {:.0})",
            percentile(&each, 0.5),
            each[0],
            each[ROUNDS - 1]
        )
    };
    say!(
        "milliseconds from sending a change, {ROUNDS} rounds: first {}, median {}, last {}",
        of(&|since| since[0]),
        of(&|since| percentile(since, 0.5)),
        of(&|since| since[count - 1]),
    );
    let parts = PARTS.map(|(name, part)| {
        let each = rounds.iter().map(|(since, _)| percentile(since, part));
        (name.to_owned(), vec![median(each.collect())])
    });
    report::bars(
        chart,
        &Bars {
            title,
            unit: "ms since the change was sent",
            series: &["median of the rounds"],
            groups: parts.into(),
        },
    );
    let mut meanwhile: Vec<f64> = rounds.iter().map(|(_, quiet)| *quiet).collect();
    meanwhile.sort_by(f64::total_cmp);
    say!(
        "a quiet customer's watcher: {:.0} ms meanwhile ({:.0} to {:.0}), {alone:.0} ms alone",
        percentile(&meanwhile, 0.5),
        meanwhile[0],
        meanwhile[ROUNDS - 1],
    );
    std::thread::sleep(SETTLES);
    show("behind the changes");
}
