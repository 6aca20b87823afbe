//! What both subgraphs need and neither owns: the event envelope, the outbox and its relay, consumers, stores, the web.
//!
//! Nothing here knows what a customer or an order is.

pub mod aggregate;
pub mod event;
pub mod kafka;
pub mod outbox;
pub mod store;
