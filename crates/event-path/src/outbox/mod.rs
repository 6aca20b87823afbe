//! The transactional outbox: state and event are written in one step, so neither exists without the other.
//!
//! [`relay`] publishes what is pending and then clears it. A crash in between publishes it twice, and never loses it.
//! `linger` decides when events wait to share a request, `refusals` keeps apart what Kafka refuses.

mod linger;
mod refusals;
pub mod relay;

pub use crate::store::{Backlog, Outbox};
pub use tandem_model::pending::{Companion, PendingEvent};
