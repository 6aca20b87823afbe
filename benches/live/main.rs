//! What live subscriptions cost, and how fast subscribers receive a change: many watchers of one customer, of many
//! customers, through the gateway, and one subscriber that catches up.
//!
//!     cargo bench --bench live                        all of it, on the embedded store and broker
//!     cargo bench --bench live -- fan-out gateway     only these parts: fan-out, share, gateway, catch-up
//!
//! Settings for a smaller run: `TANDEM_LIVE_WATCHERS` (10,000), `TANDEM_LIVE_GATEWAY_WATCHERS` (2,000),
//! `TANDEM_LIVE_CHANGES` (100,000).
//!
//! The watchers run in this process, on the same processors as the services. Each has its own socket and frames, which
//! it reads with little work. A watcher needs one file descriptor here and one in the service, so the limit of open
//! files is raised to the maximum.
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs,
    unreachable_pub
)]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;

mod catch_up;
mod fan_out;
#[path = "../report/mod.rs"]
mod report;
mod share;
#[path = "../shared/mod.rs"]
mod shared;
mod socket;
#[path = "../../tests/system/support/mod.rs"]
mod support;
mod watchers;

use report::Words;
use support::Tandem;

/// Subscriptions per socket, where they share one.
const ON_ONE_SOCKET: usize = 100;
/// File descriptors for everything but watchers.
const OTHER_FILES: u64 = 500;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn main() {
    let words = Words::among(&["fan-out", "share", "gateway", "catch-up"]);
    let watchers = setting("TANDEM_LIVE_WATCHERS", 10_000);
    let through = setting("TANDEM_LIVE_GATEWAY_WATCHERS", 2_000);
    let changes = setting("TANDEM_LIVE_CHANGES", 100_000);
    report::begin("live", "Live subscriptions", words.is_empty());
    let files = raise_open_files();
    // A gateway needs two file descriptors per watcher.
    let wanted = (watchers as u64).max(2 * through as u64) + OTHER_FILES;
    assert!(
        files.is_none_or(|files| files >= wanted),
        "{wanted} open files are needed and {files:?} allowed: `ulimit -Hn`, or fewer watchers"
    );
    // One thread, to leave the other processors to the services.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    if words.wants("fan-out") {
        for on_one in [1, ON_ONE_SOCKET] {
            fan_out::on_orders(&runtime, &start(watchers), watchers, on_one);
        }
    }
    if words.wants("gateway") {
        fan_out::through_the_gateway(&runtime, &start(watchers), through);
    }
    if words.wants("share") {
        share::measure(&runtime, &start(watchers), watchers);
    }
    if words.wants("catch-up") {
        catch_up::measure(&runtime, &start(watchers), changes);
    }
    report::end();
}

/// A fresh system that accepts this many watchers from one address.
fn start(watchers: usize) -> Tandem {
    let most = (2 * watchers + 2_000).to_string();
    let mut builder = Tandem::builder();
    for name in [
        "TANDEM_MAX_CONNECTIONS",
        "TANDEM_MAX_CONNECTIONS_PER_CLIENT",
        "TANDEM_MAX_SUBSCRIPTIONS_PER_CLIENT",
    ] {
        builder = builder.env(name, most.clone());
    }
    builder.env("TANDEM_RATE_LIMIT", "1000000").start()
}

/// Raises the limit of open files to the maximum. Child processes inherit it. `None` if there is no limit.
fn raise_open_files() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    maximum
}

/// Runs a future to completion.
fn run<F: Future>(runtime: &Runtime, future: F) -> F::Output {
    runtime.block_on(future)
}
