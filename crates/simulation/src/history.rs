//! The history: what clients and subscribers have seen. The checker judges the system by it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A change that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    /// The id of the aggregate.
    pub id: String,
    /// The revision in its answer.
    pub revision: i64,
    /// The text that only this change has written.
    pub mark: String,
    /// When it was answered, in nanoseconds since the world began.
    pub at: u64,
}

/// A subscription to all orders, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct OrdersHeard {
    /// The changes that arrived, in order: orders with revisions.
    pub heard: Vec<(String, i64)>,
    /// Since when it has a cursor to resume at, in nanoseconds since the world began.
    pub resumable_since: Option<u64>,
    /// Whether it begins with a snapshot of the orders.
    pub begins_with_snapshot: bool,
    /// Whether it has got the whole snapshot. From then on, the last revision of each order that it got is the newest.
    pub has_snapshot: bool,
}

/// One connection of a subscription to one customer.
#[derive(Clone, Debug, Default)]
pub struct CustomerHeard {
    /// The customer.
    pub id: String,
    /// The revisions that arrived, in order.
    pub heard: Vec<i64>,
    /// When the connection began.
    pub since: u64,
    /// Whether the connection was open at the end.
    pub is_open: bool,
}

/// The events of a run.
#[derive(Debug, Default)]
pub struct Events {
    /// Acknowledged changes of customers.
    pub customers: BTreeSet<Acknowledged>,
    /// Acknowledged changes of orders.
    pub orders: BTreeSet<Acknowledged>,
    /// The marks of requests with an idempotency key. At most one change has each of them.
    pub once: BTreeSet<String>,
    /// Customers whose erasure was requested, each with whether it was acknowledged.
    pub erasures: BTreeMap<String, bool>,
    /// When the placing of an order was requested, by mark.
    pub placed_at: BTreeMap<String, u64>,
    /// When a change of a customer was requested, by mark.
    pub changed_at: BTreeMap<String, u64>,
    /// Personal texts, by the customer that they belong to.
    pub personal: BTreeMap<String, BTreeSet<String>>,
    /// Subscriptions to all orders.
    pub subscriptions: Vec<OrdersHeard>,
    /// Connections of subscriptions to one customer.
    pub watched: Vec<CustomerHeard>,
    /// Violations that were seen at once.
    pub violations: Vec<String>,
    /// The number of requests.
    pub requests: u64,
    /// The number of answered requests.
    pub answered: u64,
}

/// A history. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Events>>);

impl History {
    /// Everything that has happened so far.
    pub fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a violation that nothing later can undo.
    pub fn violated(&self, sentence: String) {
        self.events().violations.push(sentence);
    }
}
