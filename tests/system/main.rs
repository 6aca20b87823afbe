//! Tests against the real binary: each starts `tandem` processes on free ports with a data directory of its own.
//!
//! One test binary with a module per subject, so that it is linked once. Waiting is by polling with a limit
//! ([`support::poll`]); whatever a test starts ends with it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs
)]

mod broker;
mod cloudevents;
mod erasure;
mod failover;
mod graphiql;
mod letters;
mod opening;
mod path;
mod plain;
mod queries;
mod rebuild;
mod rebuild_tampered;
mod refusals;
mod sasl;
mod scale_out;
mod support;
mod torture;
mod up;
