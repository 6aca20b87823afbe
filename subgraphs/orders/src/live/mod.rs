//! Changes as they happen, for live subscribers.
//!
//! Every instance of the service reads the topics whole, by assignment and not as a group, so a subscriber may be
//! connected to any of them. A subscriber has a bounded queue; one that is too slow is told so and may resume.

use std::sync::Arc;

use tandem_kit::{
    data_keys::Opener, kafka::connection::Kafka, shutdown::Shutdown, store::ChangeLog,
};

mod audience;
mod cursor;
mod customers;
pub mod log;
mod orders;
mod sightings;
#[cfg(test)]
mod tests;

pub use customers::CustomerFeed;
pub use orders::{Interest, OrderFeed, OrderUpdate};

use crate::{domain, replica};
use log::{KafkaLog, Log};

/// Why a subscription cannot begin or go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The cursor is none of these feeds'.
    #[error("the cursor {0}")]
    BadCursor(String),
    /// The subscriber was too slow for its queue.
    #[error("the subscriber was too slow")]
    Lagged {
        /// Where it may resume without a gap; `None` for a feed that has no cursors.
        cursor: Option<String>,
    },
}

/// The feeds of a service. Clones share them.
#[derive(Clone)]
pub struct Live {
    /// Changes of orders.
    pub orders: OrderFeed,
    /// Changes of replicated customers.
    pub customers: CustomerFeed,
}

impl Live {
    /// Starts feeds that read Kafka, and go on to try while it is away.
    #[must_use]
    pub fn start(
        kafka: &Kafka,
        changes: Arc<dyn ChangeLog>,
        replica: replica::Replica,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        let orders = Arc::new(KafkaLog::new(kafka.clone(), domain::event::TOPIC));
        let customers = Arc::new(KafkaLog::new(kafka.clone(), replica::event::TOPIC));
        Self::on(orders, customers, changes, replica, opener, shutdown)
    }

    /// Starts feeds that read these logs.
    #[must_use]
    pub fn on(
        orders: Arc<dyn Log>,
        customers: Arc<dyn Log>,
        changes: Arc<dyn ChangeLog>,
        replica: replica::Replica,
        opener: Opener,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            orders: OrderFeed::start(orders, changes, opener.clone(), shutdown),
            customers: CustomerFeed::start(customers, replica, opener, shutdown),
        }
    }
}
