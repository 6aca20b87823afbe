//! The orders subgraph: system of record of orders, with its own replica of the customers who place them.
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
mod rotation;
pub mod service;
pub mod stores;
#[cfg(test)]
mod test_support;
