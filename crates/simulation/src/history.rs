//! What clients and subscribers have seen: what the checker judges the system by.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A change that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    /// The aggregate.
    pub id: String,
    /// The revision that its answer showed.
    pub revision: i64,
    /// The text that this change alone has written.
    pub mark: String,
    /// When it was answered, in nanoseconds since the world began.
    pub at: u64,
}

/// A subscription to all orders, over all its connections.
#[derive(Clone, Debug, Default)]
pub struct OrdersHeard {
    /// What was heard, in order: orders with revisions.
    pub heard: Vec<(String, i64)>,
    /// When it had something to resume by, in nanoseconds since the world began.
    pub resumable_since: Option<u64>,
    /// Whether it begins with the orders that there are.
    pub begins_with_snapshot: bool,
    /// Whether it has had all of those: what it has heard of each is the newest then.
    pub has_snapshot: bool,
}

/// One connection of a subscription to one customer.
#[derive(Clone, Debug, Default)]
pub struct CustomerHeard {
    /// Whose.
    pub id: String,
    /// The revisions, in order.
    pub heard: Vec<i64>,
    /// When it began.
    pub since: u64,
    /// Whether it was there at the end.
    pub is_open: bool,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Events {
    /// Acknowledged changes of customers.
    pub customers: BTreeSet<Acknowledged>,
    /// Acknowledged changes of orders.
    pub orders: BTreeSet<Acknowledged>,
    /// Marks that were given with an idempotency key: at most one change has each.
    pub once: BTreeSet<String>,
    /// Customers whose erasure was asked for, each with whether it was acknowledged.
    pub erasures: BTreeMap<String, bool>,
    /// When the placing of an order was asked for, by mark.
    pub placed_at: BTreeMap<String, u64>,
    /// When a change of a customer was asked for, by mark.
    pub changed_at: BTreeMap<String, u64>,
    /// Texts that are personal, by the customer whose they are.
    pub personal: BTreeMap<String, BTreeSet<String>>,
    /// Subscriptions to all orders.
    pub subscriptions: Vec<OrdersHeard>,
    /// Connections of subscriptions to one customer.
    pub watched: Vec<CustomerHeard>,
    /// What was seen to be wrong at once.
    pub violations: Vec<String>,
    /// How many requests were made.
    pub requests: u64,
    /// How many of them were answered.
    pub answered: u64,
}

/// A history. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct History(Arc<Mutex<Events>>);

impl History {
    /// What has happened so far.
    pub fn events(&self) -> MutexGuard<'_, Events> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what is wrong whatever comes after it.
    pub fn violated(&self, sentence: String) {
        self.events().violations.push(sentence);
    }
}
