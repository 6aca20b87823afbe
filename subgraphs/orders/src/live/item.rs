//! The items that subscribers get. Every item has the cursor after it and the cursor before it, so that a subscriber
//! can detect that it missed one.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use tandem_model::message::Message;
use tandem_service::graphql::written::Templates;

use crate::{
    domain::{ChangeType, Order},
    replica::ReplicaCustomer,
};

/// An item of the feed of orders.
#[derive(Clone, Debug, PartialEq)]
pub enum OrderItem {
    /// A page of the orders as they were when the subscription began.
    Snapshot(OrderSnapshot),
    /// A change.
    Update(OrderUpdate),
    /// A heartbeat, because nothing happened for a while.
    Heartbeat(Heartbeat),
}

/// An item of the feed of one customer.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerItem {
    /// The customer as it was when the subscription began.
    Snapshot(CustomerSnapshot),
    /// A change.
    Update(CustomerUpdate),
    /// A heartbeat, because nothing happened for a while.
    Heartbeat(Heartbeat),
}

/// A page of orders.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderSnapshot {
    /// The cursor to resume after this page.
    pub cursor: Arc<str>,
    /// The cursor of the previous item.
    pub previous: Arc<str>,
    /// The orders, in order of placing.
    pub orders: Vec<Arc<Order>>,
    /// Whether this is the last page.
    pub complete: bool,
}

/// One change of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderUpdate {
    /// The cursor to resume after this update.
    pub cursor: Arc<str>,
    /// The cursor of the previous item.
    pub previous: Arc<str>,
    /// The type of the change.
    pub change_type: ChangeType,
    /// When the event was published, by the clock of Kafka or of the publisher, if that is known.
    pub published_at: Option<DateTime<Utc>>,
    /// The order after this change.
    pub order: Arc<Order>,
    /// What was rendered of this change for its subscribers. `None` if the change was not delivered to all of them at
    /// once.
    pub templates: Option<Arc<Templates>>,
}

/// A customer at the beginning of the subscription.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerSnapshot {
    /// The cursor to resume after this item.
    pub cursor: Arc<str>,
    /// The cursor of the previous item.
    pub previous: Arc<str>,
    /// The customer. `None` if orders does not know the customer yet, or the customer was erased.
    pub customer: Option<Arc<ReplicaCustomer>>,
}

/// One change of a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerUpdate {
    /// The cursor to resume after this update.
    pub cursor: Arc<str>,
    /// The cursor of the previous item.
    pub previous: Arc<str>,
    /// The customer after this change.
    pub customer: Arc<ReplicaCustomer>,
    /// When the event was published, by the clock of Kafka or of the publisher, if that is known.
    pub published_at: Option<DateTime<Utc>>,
}

/// An item that shows that the subscription still works.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// The cursor to resume after the heartbeat. It is further than the previous one if the log has grown by messages
    /// for other subscribers.
    pub cursor: Arc<str>,
    /// The cursor of the previous item.
    pub previous: Arc<str>,
    /// When the heartbeat was sent.
    pub at: DateTime<Utc>,
}

/// When a message was published.
pub(super) fn published_at(message: &Message) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(message.published_ms?)
}

/// The linked cursors of a subscription. Subscribers at the same place share its cursor.
#[derive(Debug)]
pub(super) struct Chain(Option<Arc<str>>);

impl Chain {
    /// Begins at a cursor, or at `None` if the beginning is not known yet.
    pub(super) fn from(begin: Option<Arc<str>>) -> Self {
        Self(begin)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Moves to the next cursor and returns the previous one. If the beginning is not known, the first cursor is its
    /// own predecessor.
    pub(super) fn link(&mut self, cursor: &Arc<str>) -> Arc<str> {
        self.0
            .replace(Arc::clone(cursor))
            .unwrap_or_else(|| Arc::clone(cursor))
    }
}
