//! The accounts subgraph: the system of record of customers.
//!
//! * [`domain`]: a customer, its rules and its events. It depends on no other module.
//! * [`customers`]: carries out commands on a store. [`encoding`] and [`vault`] seal personal data.
//! * [`graphql`], [`rest`]: the two APIs, both built on [`customers`].
//! * [`audit`]: the audit trail, a projection of accounts' own topic.
//! * [`keys`]: the customers' data keys. Keys that the topic has lost are published again.
//! * `rotation`: the replacement of the sealing key.
//! * [`stores`], [`service`]: the stores, and the function that puts the service together.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod audit;
pub mod consistency;
pub mod customers;
pub mod domain;
pub mod encoding;
pub mod graphql;
pub mod keys;
pub mod rest;
pub mod rotation;
pub mod service;
pub mod stores;
pub mod vault;

pub use domain::event::event_json_schema;
pub use graphql::sdl;
