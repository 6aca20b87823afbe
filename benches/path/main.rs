//! What a change costs from end to end, and what a read costs, beside floors measured in the same run: bare commits,
//! bare driver calls, a bare HTTP server.
//!
//!     cargo bench --bench path                 embedded store and broker
//!     cargo bench --bench path -- servers      also MongoDB and Kafka (tests/backends/install.sh); writes the report
//!     cargo bench --bench path -- servers alone     only real servers
//!     cargo bench --bench path -- idle …       only the use of resources without requests
//!     cargo bench --bench path -- creations …  only creations, one after the other and many concurrently
//!     cargo bench --bench path -- open-loop …  only creations that arrive at a constant rate
//!     cargo bench --bench path -- reads …      only reads
//!
//! Ratios matter; absolute times say little on a shared machine. Tandem and the floor are measured in turns, and the
//! median of the rounds is shown.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use std::time::Instant;

use futures::FutureExt;
use tandem_backends::{KafkaOptions, Servers};
use tokio::runtime::Runtime;

mod bare;
mod bare_store;
mod embedded;
mod idle;
mod list;
mod open_loop;
mod reads;
#[path = "../report/mod.rs"]
mod report;
mod rounds;
mod servers;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;
mod visible;

use bare_store::BareStore;
use open_loop::Floor;
use report::{Words, say};
use support::{Tandem, TandemBuilder};
use visible::next_id;

/// The parts that can be measured alone.
const PARTS: [&str; 4] = ["idle", "creations", "open-loop", "reads"];
/// The rate limit per address. The benchmark reads a bare page more often than the default limit allows.
const RATE_LIMIT: &str = "1000000";

fn main() {
    let words = Words::among(&[&["servers", "alone"][..], &PARTS[..]].concat());
    let (servers, alone) = (words.has("servers"), words.has("alone"));
    let is_whole = !PARTS.iter().any(|part| words.has(part));
    let wants = |part: &str| is_whole || words.has(part);
    report::begin(
        "path",
        "The way of a change, and reads",
        is_whole && servers && !alone,
    );
    let runtime = Runtime::new().unwrap();
    if !(servers && alone) {
        say!("# Embedded store and broker");
        on_embedded(&runtime, wants);
    }
    if servers {
        say!("\n# MongoDB (one node, majority, journaled) and Kafka (one node, acks=all)");
        on_servers(&runtime, wants);
    } else {
        say!("\nreal servers: left out; cargo bench --bench path -- servers");
    }
    report::end();
}

fn system() -> TandemBuilder {
    Tandem::builder().env("TANDEM_RATE_LIMIT", RATE_LIMIT)
}

/// The names and ids of a system's processes.
fn processes(tandem: &Tandem) -> Vec<(&'static str, u32)> {
    ["broker", "accounts", "orders", "router"]
        .into_iter()
        .filter_map(|service| Some((service, tandem.child(service)?)))
        .collect()
}

fn on_embedded(runtime: &Runtime, wants: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    let tandem = system().start();
    say!("start to ready: {:.2} s", begun.elapsed().as_secs_f64());
    if wants("idle") {
        idle::measure(&processes(&tandem), &[]);
    }
    if wants("creations") {
        embedded::creations(runtime, &tandem);
    }
    if wants("open-loop") {
        let write = BareStore::new(tandem.data_dir()).gathering();
        let floor = Floor {
            name: "one durable commit of redb for all rows of the same bytes that wait",
            write: &write,
        };
        open_loop::measure(runtime, &tandem, "open-loop-embedded", &floor);
    }
    if wants("reads") {
        reads::measure(runtime, &tandem, None);
    }
}

fn on_servers(runtime: &Runtime, wants: impl Fn(&str) -> bool) {
    let starting = Servers::start(KafkaOptions::for_measuring());
    let servers = runtime.block_on(starting).unwrap();
    let tandem = system().servers(&servers).start();
    if wants("idle") {
        let others = [
            ("mongod", servers.mongo.process_id(0).unwrap()),
            ("Kafka", servers.kafka.process_id(0).unwrap()),
        ];
        idle::measure(&processes(&tandem), &others);
    }
    if !(wants("creations") || wants("open-loop") || wants("reads")) {
        return;
    }
    let bare = runtime.block_on(bare::client(&servers.mongo));
    let wide = runtime.block_on(bare::wide_client(&servers.mongo));
    let as_it_comes = servers::warm_up(runtime, &tandem, &bare);
    let widely = as_it_comes.by(&wide);
    if wants("creations") {
        let floors = [as_it_comes, widely.clone()];
        servers::creations(runtime, &tandem, &servers, &bare, floors);
    }
    if wants("open-loop") {
        let write = || {
            let widely = widely.clone();
            async move { widely.write(&next_id()).await }.boxed()
        };
        let floor = Floor {
            name: "a bare findAndModify of the same document, 64 connections",
            write: &write,
        };
        open_loop::measure(runtime, &tandem, "open-loop", &floor);
    }
    if wants("reads") {
        reads::measure(runtime, &tandem, Some(&wide));
        list::measure(runtime, &tandem, &bare);
    }
}
