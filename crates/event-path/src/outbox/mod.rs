//! The transactional outbox: state and event are written in one step, so neither exists without the other.
//!
//! [`relay`] publishes pending events and then clears them. A crash in between publishes an event twice, but never
//! loses it. `linger` decides when events wait to share a request. `refusals` isolates the events that Kafka refuses.

mod linger;
mod refusals;
pub mod relay;

pub use crate::store::{Backlog, Outbox};
pub use tandem_model::pending::{Companion, PendingEvent};
