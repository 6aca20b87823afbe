//! Changes as they happen, for live subscribers.
//!
//! Every instance of the service reads the topics whole, by assignment and not as a group, so a subscriber may be
//! connected to any of them. A subscriber has a bounded queue; one that is too slow is told so and may resume.
//!
//! * Feeds, one reader of a topic for all its subscribers: `orders`, `customers`; `log` is the topic that they read.
//! * Subscriptions, one for each subscriber: `subscription` (orders), `customer_subscription`; `snapshot` is what they
//!   may begin with, `catch_up` what they missed, `heartbeat` what they get when nothing happens.
//! * Each change once: `deduplication` knows the first occurrence of a revision, `audit_lookup` asks the audit trail
//!   where memory does not, `held_back` keeps what cannot be sent yet.
//! * Places: `cursor` (a position, opaque to clients), `seen`, `recent`.
//! * Delivery: `subscribers`, `inbox`, `item`, `delivery`.

use std::{sync::Arc, time::Duration};

use tandem_event_path::{
    self as event_path,
    data_keys::Opener,
    store::{AggregateStore, ChangeLog, ReadBarrier},
};
use tandem_runtime::shutdown::Shutdown;

mod audit_lookup;
mod cursor;
mod customer_common;
#[cfg(test)]
mod customer_feed_tests;
mod customer_subscription;
mod customers;
mod deduplication;
mod delivery;
#[cfg(test)]
mod feed_tests;
mod heartbeat;
mod held_back;
mod inbox;
mod interest;
pub mod item;
pub mod log;
mod order_common;
mod orders;
mod recent;
mod seen;
mod short_name;
mod snapshot;
mod subscribers;
mod subscription;
#[cfg(test)]
mod tests;

pub use cursor::rewritten as rewritten_cursors;
pub use customer_common::CustomerFeed;
pub use interest::Interest;
pub use orders::OrderFeed;

use crate::{
    domain,
    replica::{self, progress::Progress},
};
use log::{Log, Topic};
use snapshot::Snapshots;

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

/// How a subscriber wants to begin and to be told that it still hears.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedRequest<'a> {
    /// The cursor that it resumes behind.
    pub after: Option<&'a str>,
    /// Whether it begins with what there is, if it resumes nothing.
    pub snapshot: bool,
    /// After how long a silence it is told that nothing happened.
    pub heartbeat: Option<Duration>,
}

/// The feeds of a service. Clones share them.
#[derive(Clone)]
pub struct Live {
    /// Changes of orders.
    pub orders: OrderFeed,
    /// Changes of replicated customers.
    pub customers: CustomerFeed,
}

/// What feeds are made of beside the log.
#[derive(Clone)]
pub struct Sources {
    /// The orders that snapshots show.
    pub orders: Arc<dyn AggregateStore<domain::Order>>,
    /// The audit trail of orders.
    pub changes: Arc<dyn ChangeLog>,
    /// What is passed before these are read for a snapshot.
    pub barrier: ReadBarrier,
    /// The customers.
    pub replica: replica::Replica,
    /// How far those have come in the log.
    pub progress: Progress,
    /// Opens what is sealed.
    pub opener: Opener,
}

impl Live {
    /// Starts feeds that read the log, and go on to try while it is away.
    #[must_use]
    pub fn start(
        log: &Arc<dyn event_path::log::Log>,
        sources: Sources,
        shutdown: &Shutdown,
    ) -> Self {
        let order_log = Arc::new(Topic::new(log, domain::event::TOPIC));
        let customer_log = Arc::new(Topic::new(log, replica::event::TOPIC));
        Self::on(order_log, customer_log, sources, shutdown)
    }

    /// Starts feeds that read these logs.
    #[must_use]
    pub fn on(
        order_log: Arc<dyn Log>,
        customer_log: Arc<dyn Log>,
        sources: Sources,
        shutdown: &Shutdown,
    ) -> Self {
        let Sources {
            orders,
            changes,
            barrier,
            replica,
            progress,
            opener,
        } = sources;
        // A series that begins with the first of its kind is no increase.
        for counter in ["live_subscribers_lagged_total", "live_changes_untold_total"] {
            metrics::counter!(counter).increment(0);
        }
        Self {
            orders: OrderFeed::start(
                order_log,
                Snapshots::new(orders, Arc::clone(&changes), barrier),
                changes,
                opener.clone(),
                shutdown,
            ),
            customers: CustomerFeed::start(customer_log, replica, progress, opener, shutdown),
        }
    }
}
