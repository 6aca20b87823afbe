//! Tests against the real binary. Each one starts `tandem` processes on free ports with its own data directory.
//!
//! It is one test binary with a module per subject, so that it is linked once. Tests wait by polling with a limit
//! ([`support::poll`]). Everything that a test starts ends with it.
#![allow(clippy::disallowed_methods, reason = "tests wait for real processes")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs
)]

mod api_pages;
mod authorization;
mod broker;
mod cloudevents;
mod collection;
mod consistency;
mod counters;
mod dead_letters;
mod erasure;
mod events;
mod failover;
mod faketime;
mod front_door;
mod full_disk;
mod going_away;
mod graphiql;
mod live;
mod log_shapes;
mod lost_keys;
mod lost_log;
mod newcomer;
mod older_copy;
mod operations;
mod path;
mod plain;
mod proof;
mod queries;
mod reasons;
mod rebuild;
mod rebuild_tampered;
mod refusals;
mod rehearsal;
mod rolling;
mod rotation;
mod sasl;
mod scale_out;
mod signed_events;
mod startup;
mod support;
mod tls;
mod torture;
mod traces;
mod two_gateways;
mod two_systems;
mod up;
mod upgrade;
mod wire;
