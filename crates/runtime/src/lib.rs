//! What every crate may use and what uses none of them: clock, shutdown, backoff, trace context, spans, exemplars, consistency token, a log that does not repeat itself.
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
