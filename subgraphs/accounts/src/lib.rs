//! The accounts subgraph: the system of record of customers.
//!
//! `domain` knows the rules and nothing of the outside; `customers` carries commands out on a store; `graphql`, `rest`
//! and `audit` speak for it; `service` puts the parts together.

pub mod audit;
pub mod customers;
pub mod domain;
pub mod graphql;
pub mod rest;
pub mod service;
pub mod stores;
pub mod telling;
pub mod vault;

pub use domain::event::event_json_schema;
pub use graphql::sdl;
