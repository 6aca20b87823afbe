//! Live changes for subscribers.
//!
//! Every instance of the service reads the whole topics by assignment, not in a consumer group. So a subscriber may be
//! connected to any instance. Each subscriber has a bounded queue. A subscriber that is too slow gets an error and may
//! resume.
//!
//! * Feeds, one reader of a topic for all its subscribers: `orders`, `customers`; `log` is the topic that they read.
//! * Subscriptions, one for each subscriber: `subscription` (orders), `customer_subscription`; `snapshot` has the pages
//!   that they may begin with, `catch_up` reads what they missed, `heartbeat` sends an item when nothing happens.
//! * Each change once: `deduplication` knows the first occurrence of a revision, `audit_lookup` asks the audit trail if
//!   memory does not know it, `held_back` keeps changes that cannot be sent yet.
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

/// Why a subscription cannot begin or continue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The cursor is not valid for this feed.
    #[error("the cursor {0}")]
    BadCursor(String),
    /// The subscriber was too slow for its queue.
    #[error("the subscriber was too slow")]
    Lagged {
        /// The cursor to resume at without a gap. `None` for a feed without cursors.
        cursor: Option<String>,
    },
}

/// How a subscription begins, and its heartbeat interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct FeedRequest<'a> {
    /// The cursor to resume after.
    pub after: Option<&'a str>,
    /// Whether the subscription begins with the present state. It has no effect if `after` is given.
    pub snapshot: bool,
    /// The interval of silence after which a heartbeat is sent.
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

/// What the feeds need besides the log.
#[derive(Clone)]
pub struct Sources {
    /// The orders that snapshots read.
    pub orders: Arc<dyn AggregateStore<domain::Order>>,
    /// The audit trail of orders.
    pub changes: Arc<dyn ChangeLog>,
    /// The barrier that is passed before orders are read for a snapshot.
    pub barrier: ReadBarrier,
    /// The replica of customers.
    pub replica: replica::Replica,
    /// The progress of the replica in the log.
    pub progress: Progress,
    /// Opens sealed events.
    pub opener: Opener,
}

impl Live {
    /// Starts the feeds on the service's log. They retry while it is away.
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

    /// Starts the feeds on these logs.
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
        // Each counter starts at 0. If a series began with its first event, an increase would not be visible.
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
