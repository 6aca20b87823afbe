//! The way of a change, from a command to what is built from the log: commands, outbox and relay, projections, dead letters, rebuild,
//! data keys, and the ports of what keeps state.
//!
//! Nothing here knows what a customer or an order is.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod checkpoint;
pub mod claims;
pub mod commands;
pub mod data_keys;
pub mod dead_letter_topic;
pub mod fault;
pub mod held_back;
pub mod log;
pub mod log_memory;
pub mod log_restore;
pub mod outbox;
pub mod projection;
pub mod rebuild;
pub mod refused_records;
pub mod sealing;
pub mod signing;
pub mod spans;
pub mod store;
pub mod system;
pub mod waiting;
