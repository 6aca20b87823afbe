//! The path of a change, from a command to everything that is built from the log.
//!
//! * [`commands`]: carries out a command: load, decide, write, and decide again if another writer was faster
//! * [`store`], [`log`]: the ports, which say what the event path needs from a database and from Kafka. The adapters
//!   are separate crates
//! * [`outbox`]: events that are stored and not published yet, and the relay that publishes them in order
//! * [`projection`]: reads a topic in a consumer group and applies its messages. Messages that cannot be applied become
//!   dead letters
//! * [`dead_letter_topic`]: copies of dead letters in `<topic>.DLT`, for people
//! * [`rebuild`]: restores a store from the log, and fills a new store
//! * [`log_memory`], [`checkpoint`], [`held_back`]: whether a log is still the one that a store was made from, and
//!   whether all of it can be read
//! * [`log_restore`]: writes to a log what it has lost, from the store
//! * [`data_keys`], [`waiting`]: one key for each subject of events, which seals personal data, and events that wait
//!   for such a key
//! * [`sealing`]: sealing with the services' own key
//! * [`signing`], [`system`], [`claims`], [`refused_records`]: who signed a record, to which system the topics belong,
//!   and which records are refused
//! * [`spans`]: the parts of a trace that publishing and processing record
//! * [`fault`]: faults that tests switch on, in builds with debug assertions only
//!
//! Nothing in this crate knows what a customer or an order is.
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
