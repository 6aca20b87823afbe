//! Shared code of the system tests: the processes of `tandem`, and polling with a limit.
#![allow(dead_code, unused_imports)]

// The gateway's own tests use the same browser code.
#[path = "../../gateway/browser.rs"]
pub mod browser;
pub mod checker;
mod client;
pub mod command;
pub mod fleet;
pub mod follower;
pub mod graph;
pub mod ground;
mod process;
pub mod screen;
pub mod site;
mod tandem;
pub mod workload;

pub use client::{Client, Subscription, Transport};
pub use process::{Process, Signal, is_alive, limit_files, signal, try_signal};
pub use tandem::{TANDEM, Tandem, TandemBuilder, command as tandem_command, command_of};

use std::time::{Duration, Instant};

/// How long a test waits for something that takes moments on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Polls until there is a value. Fails with `what` when [`LIMIT`] has passed.
#[track_caller]
pub fn poll<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    poll_for(LIMIT, what, &mut ask)
}

/// Like [`poll`], with another limit.
#[track_caller]
pub fn poll_for<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
