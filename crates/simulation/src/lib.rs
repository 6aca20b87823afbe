//! Runs the event path of both services on one thread, in virtual time, from one seed. The simulated log and store fail
//! in the ways in which Kafka and a database fail. For development only; `docs/simulation.md` says how to use it.
//!
//! * [`run`]: one run of a seed. [`world`]: virtual time. [`process`], [`system`]: instances of the services.
//! * [`log`], [`store`]: they stand in for Kafka and the databases. [`nemesis`], [`loss`], [`replaced_key`]: the faults
//!   of a run.
//! * [`clients`], [`subscribers`]: the users of the system. [`history`]: what they saw.
//! * [`checker`]: judges the stores, the log and the history when the run has come to rest.
//! * [`faults`]: faults that are planted on purpose, to show that the checker finds them.

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
