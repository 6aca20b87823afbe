//! What both services set up in the same way. It needs ports, adapters and HTTP together, so it cannot be part of their
//! crates.
//!
//! * [`service`]: the life of the process: port, stores, background tasks, end.
//! * [`store_settings`], [`stores`]: the stores that the settings name.
//! * [`sealing_keys`]: which sealing keys a store needs.
//! * [`admin`]: the operator's routes under `/admin`: rebuild, dead letters, keys, log, audit.
//! * [`components`]: the health of the event path.
//! * [`consistency`]: whether this instance shows what a client wrote.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod admin;
pub mod components;
pub mod consistency;
pub mod sealing_keys;
pub mod service;
pub mod store_settings;
pub mod stores;
