//! What becomes slower and what becomes larger with more data: the same measurements with a small and a large number of
//! customers and events.
//!
//!     cargo bench --bench growth                       10,000 and 200,000 customers, embedded store and broker
//!     cargo bench --bench growth -- 50000              10,000 and this many customers
//!     cargo bench --bench growth -- 1000000 servers    on real MongoDB and Kafka (tests/backends/install.sh)
//!
//! Filling takes most of the time. With five events per customer and 2,000 events per second, 200,000 customers take
//! eight minutes and 1,000,000 customers take forty. The progress is printed.
//!
//! Each figure of the large system should be at most 1.2 times that of the small one, except those that are named as
//! growing with the data.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use tandem_backends::{KafkaOptions, Servers};
use tokio::runtime::Runtime;

mod figures;
mod fill;
#[path = "../report/mod.rs"]
mod report;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;

use figures::Figure;
use report::{A_NUMBER, Bars, Words, say};
use support::Tandem;

const SMALL: usize = 10_000;
const LARGE: usize = 200_000;
/// The rate limit per address: this one client stands for many.
const RATE_LIMIT: &str = "1000000";
/// Events per customer.
pub const EVENTS: usize = 5;

fn main() {
    let words = Words::among(&["servers", A_NUMBER]);
    let sizes = [SMALL, words.number().unwrap_or(LARGE)];
    assert!(sizes[0] < sizes[1], "it takes more than {SMALL} customers");
    report::begin("growth", "What grows with the data", words.is_empty());
    let runtime = Runtime::new().unwrap();
    let servers = words.has("servers").then(|| {
        let starting = Servers::start(KafkaOptions::for_measuring());
        runtime.block_on(starting).unwrap()
    });
    let of_servers: Vec<(&'static str, u32)> = servers.iter().flat_map(processes).collect();
    let mut builder = Tandem::builder().env("TANDEM_RATE_LIMIT", RATE_LIMIT);
    if let Some(servers) = &servers {
        builder = builder.servers(servers);
    }
    let mut tandem = builder.start();
    let stores = if servers.is_some() {
        fill::warm_up(&runtime, &tandem);
        "MongoDB and Kafka"
    } else {
        "embedded store and broker"
    };
    say!(
        "# {} and {} customers, {EVENTS} events each, {stores}",
        sizes[0],
        sizes[1]
    );
    let mut made = 0;
    let measured = sizes.map(|size| {
        fill::with(&runtime, &tandem, made..size);
        made = size;
        figures::measure(&runtime, &mut tandem, &of_servers, size)
    });
    show(sizes, &measured);
    draw(sizes, &measured);
    report::end();
}

fn processes(servers: &Servers) -> [(&'static str, u32); 2] {
    [
        ("mongod", servers.mongo.process_id(0).unwrap()),
        ("Kafka", servers.kafka.process_id(0).unwrap()),
    ]
}

/// How many times slower or larger the large system is.
fn ratio(small: &Figure, large: &Figure) -> f64 {
    if small.is_rate {
        small.value / large.value
    } else {
        large.value / small.value
    }
}

fn show(sizes: [usize; 2], measured: &[Vec<Figure>; 2]) {
    let [small, large] = measured;
    say!(
        "{:<58} {:>12} {:>12} {:>7}",
        "",
        sizes[0],
        sizes[1],
        "ratio"
    );
    for (small, large) in small.iter().zip(large) {
        let ratio = ratio(small, large);
        let name = format!("{}, {}", small.name, small.unit);
        say!(
            "{name:<58} {:>12.1} {:>12.1} {ratio:>7.2}",
            small.value,
            large.value
        );
    }
    say!("ratio: how many times as slow, or as large; aim 1.2");
}

fn draw(sizes: [usize; 2], measured: &[Vec<Figure>; 2]) {
    let [small, large] = measured;
    let pairs = small.iter().zip(large);
    report::bars(
        "ratios",
        &Bars {
            title: &format!("At {} customers, beside {}", sizes[1], sizes[0]),
            unit: "times as slow, or as large",
            series: &["ratio"],
            groups: pairs
                .map(|(small, large)| (small.name.clone(), vec![ratio(small, large)]))
                .collect(),
        },
    );
}
