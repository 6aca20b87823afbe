//! The values that the services and the event path exchange. No I/O, no clock.
//!
//! * [`aggregate`]: what a store needs to know about an aggregate.
//! * [`event`], [`cloudevents`], [`change`]: the envelope of an event, its form in Kafka, and the rules that every
//!   change event keeps.
//! * [`pending`], [`message`]: events that wait to be published, and records that were read.
//! * [`printable`]: the characters that texts may contain.
//! * [`request_key`]: idempotency keys.
//! * [`seal`]: the interface through which a domain seals data without knowing the key.
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
