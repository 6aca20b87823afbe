//! What a change costs on its whole way, and what a read costs, beside floors measured in the same run: bare commits, bare driver
//! calls, a bare HTTP server.
//!
//!     cargo bench --bench path                 embedded store and broker
//!     cargo bench --bench path -- servers      real MongoDB and Kafka too (tests/backends/install.sh)
//!     cargo bench --bench path -- servers alone     only there
//!     cargo bench --bench path -- reads …      only the reads of that
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

use tandem_backends::{Kafka, KafkaOptions, Mongo};
use tokio::runtime::Runtime;

mod bare;
mod embedded;
mod list;
mod reads;
mod rounds;
mod servers;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;
mod visible;

use support::Tandem;

fn main() {
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    let (servers, alone, reads) = (has("servers"), has("alone"), has("reads"));
    let runtime = Runtime::new().unwrap();
    if !(servers && alone) {
        println!("# embedded store and broker");
        let tandem = if reads {
            Tandem::start()
        } else {
            embedded::embedded(&runtime)
        };
        reads::measure(&runtime, &tandem, None);
    }
    if servers {
        println!("\n# MongoDB (one node, majority, journaled) and Kafka (one node, acks=all)");
        on_servers(&runtime, reads);
    } else {
        println!("\nreal servers: left out; cargo bench --bench path -- servers");
    }
}

fn on_servers(runtime: &Runtime, only_reads: bool) {
    let (mongo, kafka) = runtime.block_on(async {
        let (mongo, kafka) =
            tokio::join!(Mongo::start(1), Kafka::start(KafkaOptions::for_measuring()));
        (mongo.unwrap(), kafka.unwrap())
    });
    let tandem = Tandem::builder()
        .flag("--mongodb-uri")
        .flag(mongo.uri())
        .flag("--kafka-brokers")
        .flag(kafka.bootstrap())
        .start();
    let bare = runtime.block_on(bare::client(&mongo));
    reads::measure(runtime, &tandem, Some(&bare));
    list::measure(runtime, &tandem, &bare);
    if !only_reads {
        servers::creations(runtime, &tandem, &mongo, &kafka, &bare);
    }
}
