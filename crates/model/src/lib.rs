//! The values that services and event path exchange. No I/O, no clock.
//!
//! * [`aggregate`]: what a store needs to know of an aggregate.
//! * [`event`], [`cloudevents`], [`change`]: the envelope of an event, its form in Kafka, and the rules that every
//!   change event keeps.
//! * [`pending`], [`message`]: events that wait to be published, and records that were read.
//! * [`printable`]: which characters texts may have.
//! * [`request_key`]: idempotency keys.
//! * [`seal`]: the interface by which a domain seals data without knowing the key.
//! * [`values`], [`json`]: times, exact decimals, and JSON from outside.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod aggregate;
pub mod change;
pub mod cloudevents;
pub mod event;
pub mod json;
pub mod message;
pub mod pending;
pub mod printable;
pub mod request_key;
pub mod seal;
pub mod values;
