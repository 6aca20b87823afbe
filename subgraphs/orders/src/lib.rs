//! The orders subgraph: system of record of orders, with its own replica of the customers who place them.

pub mod audit;
pub mod commands;
#[cfg(test)]
mod committed;
pub mod domain;
pub mod erasure;
pub mod graphql;
pub mod live;
pub mod replica;
pub mod rest;
pub mod service;
pub mod stores;
#[cfg(test)]
mod test_support;
