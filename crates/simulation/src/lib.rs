//! Runs the event path of both services on one thread, in virtual time, from one seed, on a simulated log and store
//! that fail in the ways in which Kafka and a database fail. For development only; `docs/simulation.md` says how to use
//! it.
//!
//! * [`run`]: one run of a seed. [`world`]: virtual time. [`process`], [`system`]: instances of the services.
//! * [`log`], [`store`]: what stands in for Kafka and the databases. [`nemesis`], [`loss`], [`replaced_key`]: what goes
//!   wrong.
//! * [`clients`], [`subscribers`]: who uses the system, and [`history`], what they saw.
//! * [`checker`]: judges the stores, the log and the history when everything has come to rest.
//! * [`faults`]: faults planted on purpose, to show that the checker finds them.

pub mod chance;
pub mod checker;
pub mod clients;
pub mod cut_off;
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
pub mod replaced_sealing_key;
pub mod run;
pub mod store;
pub mod subscribers;
pub mod system;
pub mod world;
