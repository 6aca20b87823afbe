//! What both services put together in the same way: their stores by the settings, the operator's routes, the health of the event
//! path, the life of the process.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod admin;
pub mod components;
pub mod consistency;
pub mod service;
pub mod store_settings;
pub mod stores;
