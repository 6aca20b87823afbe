//! The path of a change, from a command to everything that is built from the log.
//!
//! * [`commands`]: carries out a command: load, decide, write, and decide again if another writer was faster
//! * [`store`], [`log`]: the ports: what the event path needs of a database and of Kafka. Adapters are crates of their
//!   own
//! * [`outbox`]: events that are stored and not published yet, and the relay that publishes them in order
//! * [`projection`]: reads a topic in a consumer group and applies it, with dead letters for what cannot be applied
//! * [`dead_letter_topic`]: copies of dead letters in `<topic>.DLT`, for people
//! * [`rebuild`]: restores a store from the log; fills a new store
//! * [`log_memory`], [`checkpoint`], [`held_back`]: whether a log is still the one that a store was made from, and
//!   whether all of it can be read
//! * [`log_restore`]: writes to a log what it has lost, from the store
//! * [`data_keys`], [`waiting`]: a key for each subject of events, which seals what is personal; events that wait for
//!   such a key
//! * [`sealing`]: sealing with the services' own key
//! * [`signing`], [`system`], [`claims`], [`refused_records`]: who signed a record, to which system the topics belong,
//!   and what is refused
//! * [`spans`]: the parts of a trace that publishing and processing record
//! * [`fault`]: faults that tests switch on, in builds with debug assertions only
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
