//! What a service process is: configuration, HTTP, health, telemetry, GraphQL conventions.
//!
//! Nothing here knows of events, of a log or of a store.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod error_code;
pub mod graphql;
pub mod settings;
pub mod telemetry;
pub mod web;
