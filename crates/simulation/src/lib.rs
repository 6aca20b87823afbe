//! The event path of both services run single-threaded in virtual time from one seed, on a log and a store that do what Kafka and a
//! database do to people, and a checker that judges the history. For development alone; `docs/simulation.md` says more.
#![warn(clippy::disallowed_methods)]

pub mod chance;
pub mod checker;
pub mod clients;
mod drafts;
pub mod faults;
pub mod history;
pub mod key_topic;
pub mod log;
pub mod loss;
pub mod losses;
pub mod nemesis;
pub mod process;
pub mod replaced_key;
pub mod run;
pub mod store;
pub mod subscribers;
pub mod system;
pub mod world;
