//! What becomes slower, and what becomes larger, when there is more: the same measurements at a small and at a large number of customers and events.
//!
//!     cargo bench --bench growth                       10,000 and 200,000 customers, five events each, embedded store and broker
//!     cargo bench --bench growth -- 50000              10,000 and so many
//!     cargo bench --bench growth -- 1000000 servers    on real MongoDB and Kafka
//!
//! Each figure of the large one is to be at most 1.2 times that of the small one, except what is named as growing with the data.
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
use report::{A_NUMBER, Words, say};
use support::Tandem;

const SMALL: usize = 10_000;
const LARGE: usize = 200_000;
/// Of each customer.
pub const EVENTS: usize = 5;

fn main() {
    let words = Words::among(&["servers", A_NUMBER]);
    report::begin("growth", "What grows with the data", words.is_empty());
    let runtime = Runtime::new().unwrap();
    let servers = words.has("servers").then(|| {
        let starting = Servers::start(KafkaOptions::for_measuring());
        runtime.block_on(starting).unwrap()
    });
    let mut builder = Tandem::builder();
    if let Some(servers) = &servers {
        builder = builder.servers(servers);
    }
    let mut tandem = builder.start();
    let sizes = [SMALL, words.number().unwrap_or(LARGE)];
    let mut made = 0;
    let measured = sizes.map(|size| {
        fill::with(&runtime, &tandem, made..size);
        made = size;
        figures::measure(&runtime, &mut tandem, size)
    });
    show(sizes, &measured);
    report::end();
}

fn show(sizes: [usize; 2], measured: &[Vec<Figure>; 2]) {
    let [small, large] = measured;
    say!(
        "# {} and {} customers, {EVENTS} events each",
        sizes[0],
        sizes[1]
    );
    say!(
        "{:<58} {:>12} {:>12} {:>7}",
        "",
        sizes[0],
        sizes[1],
        "ratio"
    );
    for (small, large) in small.iter().zip(large) {
        let ratio = if small.is_rate {
            small.value / large.value
        } else {
            large.value / small.value
        };
        let name = format!("{}, {}", small.name, small.unit);
        say!(
            "{name:<58} {:>12.1} {:>12.1} {ratio:>7.2}",
            small.value,
            large.value
        );
    }
    say!("ratio: how many times as slow, or as large; aim 1.2");
}
