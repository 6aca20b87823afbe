//! The accounts subgraph: the system of record of customers.
//!
//! `domain` knows the rules and nothing of the outside; `customers` carries commands out on a store; `graphql`, `rest`
//! and `audit` speak for it; `service` puts the parts together.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod audit;
pub mod consistency;
pub mod customers;
pub mod domain;
pub mod encoding;
pub mod graphql;
pub mod keys;
pub mod rest;
mod rotation;
pub mod service;
pub mod stores;
pub mod vault;

pub use domain::event::event_json_schema;
pub use graphql::sdl;
