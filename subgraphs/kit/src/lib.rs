//! What both subgraphs need and neither owns: the event envelope, the outbox and its relay, consumers, stores, the web.
//!
//! Nothing here knows what a customer or an order is.

pub mod admin;
pub mod aggregate;
pub mod commands;
pub mod consumer;
pub mod data_keys;
pub mod event;
#[cfg(any(test, feature = "contract-suite"))]
pub mod event_contract;
mod fault;
pub mod graphql;
pub mod kafka;
pub mod outbox;
pub mod rebuild;
pub mod sealing;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod trace_context;
pub mod values;
pub mod web;
