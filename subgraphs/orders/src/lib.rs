//! The orders subgraph: the system of record of orders, with a replica of the customers who place them.
//!
//! * [`domain`]: an order, its rules and its events. It depends on no other module.
//! * [`commands`]: carries out commands. The replica decides whether a customer may order.
//! * [`replica`]: customers as orders knows them, built from the events of accounts, so that orders works while
//!   accounts is down.
//! * [`live`]: changes for subscribers. Every instance reads them from the log.
//! * [`graphql`], [`rest`]: the two APIs.
//! * [`audit`]: the audit trail, a projection of orders' own topic.
//! * [`erasure`]: what the erasure of a customer removes here. `rotation`: the replacement of the sealing key.
//! * [`stores`], [`service`]: the stores, and the function that puts the service together.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests run for real"))]

pub mod audit;
pub mod commands;
#[cfg(test)]
mod committed;
pub mod consistency;
pub mod domain;
pub mod erasure;
pub mod graphql;
pub mod live;
pub mod replica;
pub mod rest;
pub mod rotation;
pub mod service;
pub mod stores;
#[cfg(test)]
mod test_support;
