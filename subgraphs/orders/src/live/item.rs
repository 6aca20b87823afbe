//! What subscribers are given. Every item says where its subscriber is behind it and where it was before, so that whoever misses one can
//! know it.

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
    /// Nothing happened for a while.
    Heartbeat(Heartbeat),
}

/// An item of the feed of one customer.
#[derive(Clone, Debug, PartialEq)]
pub enum CustomerItem {
    /// The customer as it was when the subscription began.
    Snapshot(CustomerSnapshot),
    /// A change.
    Update(CustomerUpdate),
    /// Nothing happened for a while.
    Heartbeat(Heartbeat),
}

/// A page of orders.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderSnapshot {
    /// To resume behind this page.
    pub cursor: Arc<str>,
    /// The cursor of the item before.
    pub previous: Arc<str>,
    /// The orders, in order of placing.
    pub orders: Vec<Arc<Order>>,
    /// Whether this is the last page.
    pub complete: bool,
}

/// One change of an order.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderUpdate {
    /// To resume behind this update.
    pub cursor: Arc<str>,
    /// The cursor of the item before.
    pub previous: Arc<str>,
    /// What happened.
    pub change_type: ChangeType,
    /// When it was published, by Kafka's clock or its publisher's, if that is known.
    pub published_at: Option<DateTime<Utc>>,
    /// The order as it was after this change.
    pub order: Arc<Order>,
    /// What was written of this change for its subscribers; none of one that was not told to all of them at once.
    pub templates: Option<Arc<Templates>>,
}

/// A customer when the subscription began.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerSnapshot {
    /// To resume behind it.
    pub cursor: Arc<str>,
    /// The cursor of the item before.
    pub previous: Arc<str>,
    /// The customer; `None` for one that orders does not know yet, or who was erased.
    pub customer: Option<Arc<ReplicaCustomer>>,
}

/// One change of a customer.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomerUpdate {
    /// To resume behind this update.
    pub cursor: Arc<str>,
    /// The cursor of the item before.
    pub previous: Arc<str>,
    /// The customer as it was after this change.
    pub customer: Arc<ReplicaCustomer>,
    /// When it was published, by Kafka's clock or its publisher's, if that is known.
    pub published_at: Option<DateTime<Utc>>,
}

/// A word that the subscription goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    /// To resume behind it: further than the item before where the log grew by what is not for this subscriber.
    pub cursor: Arc<str>,
    /// The cursor of the item before.
    pub previous: Arc<str>,
    /// When it was sent.
    pub at: DateTime<Utc>,
}

/// When a message was published.
pub(super) fn published_at(message: &Message) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(message.published_ms?)
}

/// The cursors of a subscription, one behind the other. All who wait at one place share its cursor.
#[derive(Debug)]
pub(super) struct Chain(Option<Arc<str>>);

impl Chain {
    /// Begins at a cursor; `None` where that is not known yet.
    pub(super) fn from(begin: Option<Arc<str>>) -> Self {
        Self(begin)
    }

    pub(super) fn has_begun(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on to the next cursor; answers the one before it, which for the first of all is itself where nobody said where the
    /// subscription began.
    pub(super) fn link(&mut self, cursor: &Arc<str>) -> Arc<str> {
        self.0
            .replace(Arc::clone(cursor))
            .unwrap_or_else(|| Arc::clone(cursor))
    }
}
