//! What every crate may use: time, shutdown, retries and traces. It uses none of our crates.
//!
//! * [`clock`], [`duration`]: the process's source of time, waits, ids and random numbers. A simulation replaces it.
//! * [`shutdown`], [`task`], [`notified`]: tasks that end with the process, and waiting.
//! * [`backoff`]: the pauses between retries.
//! * [`trace_context`], [`span`], [`exemplars`]: which trace a request or event belongs to, and what is recorded of it.
//! * [`consistency`]: the token by which a client reads its own writes.
//! * [`rate_limited_log`]: a log that suppresses repeated lines.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod backoff;
pub mod clock;
pub mod consistency;
pub mod duration;
pub mod exemplars;
pub mod notified;
pub mod rate_limited_log;
pub mod shutdown;
pub mod span;
pub mod task;
pub mod trace_context;
mod wrong_clock;
