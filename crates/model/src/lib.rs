//! What the services and the event path speak of: aggregates, events, messages of a log, times and decimals. No I/O, no clock.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod aggregate;
pub mod change;
pub mod cloudevents;
pub mod event;
pub mod json;
pub mod message;
pub mod pending;
pub mod request_key;
pub mod seal;
pub mod values;
