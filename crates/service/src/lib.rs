//! What every service process has, whatever it serves. Nothing here knows events, a log or a store.
//!
//! * [`settings`]: flags over environment over one TOML file.
//! * [`telemetry`]: logs and metrics.
//! * [`web`]: the HTTP server, health, problems (RFC 9457), API documents and pages.
//! * [`graphql`]: conventions of a subgraph: errors with codes, scalars, connections, batched reads, entities.
//! * [`error_code`]: the codes that both APIs use.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod error_code;
pub mod graphql;
pub mod settings;
pub mod telemetry;
pub mod web;
