//! What a change costs on its whole way, and what a read costs, beside floors measured in the same run: bare commits, bare driver
//! calls, a bare HTTP server.
//!
//!     cargo bench --bench path                 embedded store and broker
//!     cargo bench --bench path -- servers      real MongoDB and Kafka too (tests/backends/install.sh)
//!     cargo bench --bench path -- servers alone     only there
//!     cargo bench --bench path -- reads …      only the reads of that
//!     cargo bench --bench path -- open-loop …  only creations that arrive at a constant rate
//!
//! Ratios count; absolute times say little on a shared machine. Ours and the floor are measured in turns, and the median
//! of the rounds is shown.
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

mod bare;
mod embedded;
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

use report::{Words, say};
use support::Tandem;

/// What is measured.
#[derive(Clone, Copy)]
struct Parts {
    creations: bool,
    reads: bool,
    open_loop: bool,
}

fn main() {
    let words = Words::among(&["servers", "alone", "reads", "open-loop"]);
    let (servers, alone) = (words.has("servers"), words.has("alone"));
    let (reads, open_loop) = (words.has("reads"), words.has("open-loop"));
    let is_whole = !reads && !open_loop;
    let parts = Parts {
        creations: is_whole,
        reads: reads || is_whole,
        open_loop: open_loop || is_whole,
    };
    report::begin(
        "path",
        "The way of a change, and reads",
        is_whole && servers && !alone,
    );
    let runtime = Runtime::new().unwrap();
    if !(servers && alone) {
        say!("# Embedded store and broker");
        on_embedded(&runtime, parts);
    }
    if servers {
        say!("\n# MongoDB (one node, majority, journaled) and Kafka (one node, acks=all)");
        on_servers(&runtime, parts);
    } else {
        say!("\nreal servers: left out; cargo bench --bench path -- servers");
    }
    report::end();
}

fn on_embedded(runtime: &Runtime, parts: Parts) {
    let tandem = if parts.creations {
        embedded::embedded(runtime)
    } else {
        Tandem::start()
    };
    if parts.open_loop {
        open_loop::measure(runtime, &tandem, "open-loop-embedded");
    }
    if parts.reads {
        reads::measure(runtime, &tandem, None);
    }
}

fn on_servers(runtime: &Runtime, parts: Parts) {
    let starting = Servers::start(KafkaOptions::for_measuring());
    let servers = runtime.block_on(starting).unwrap();
    let tandem = Tandem::builder().servers(&servers).start();
    let bare = runtime.block_on(bare::client(&servers.mongo));
    if parts.creations {
        servers::creations(runtime, &tandem, &servers, &bare);
    }
    if parts.open_loop {
        servers::warm_up(runtime, &tandem);
        open_loop::measure(runtime, &tandem, "open-loop");
    }
    if parts.reads {
        reads::measure(runtime, &tandem, Some(&bare));
        list::measure(runtime, &tandem, &bare);
    }
}
