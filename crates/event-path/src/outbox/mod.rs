//! The transactional outbox: state and event are written in one step, so neither exists without the other.
//! The relay publishes what is pending and then clears it; a crash in between publishes twice, never not at all.

mod linger;
mod refusals;
pub mod relay;

pub use crate::store::{Backlog, Outbox};
pub use tandem_model::pending::{Companion, PendingEvent};
