//! The orders subgraph: system of record of orders, with its own replica of the customers who place them.

pub mod audit;
pub mod commands;
#[cfg(test)]
mod committed;
pub mod domain;
pub mod graphql;
pub mod live;
pub mod replica;
