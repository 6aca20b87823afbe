//! What tokens and the replacement of the sealing key cost, each compared to the same work without it. For signatures
//! of events see `cargo bench -p tandem-event-path --bench signed_records`.
//!
//!     cargo bench --bench security                         tokens
//!     cargo bench --bench security -- rotation 100000      replaces the key of this many customers during creations
//!     cargo bench --bench security -- rotation 100000 servers    on real MongoDB and Kafka
//!
//! Ratios matter; absolute times say little on a shared machine. Runs with and without are measured in turns, and the
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

#[path = "../report/mod.rs"]
mod report;
mod rotation;
#[path = "../shared/mod.rs"]
mod shared;
#[path = "../../tests/system/support/mod.rs"]
mod support;
mod tokens;

use tokio::runtime::Runtime;

use report::{A_NUMBER, Words};

fn main() {
    let words = Words::among(&["rotation", "servers", A_NUMBER]);
    report::begin(
        "security",
        "What tokens cost, and the replacement of a key",
        words.is_empty(),
    );
    let runtime = Runtime::new().unwrap();
    if words.has("rotation") {
        let count = words.number().unwrap_or(10_000);
        rotation::measure(&runtime, count, words.has("servers"));
    } else {
        tokens::measure(&runtime);
    }
    report::end();
}
