//! Batched reads. What the resolvers of one operation request at the same time is read together.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use dataloader::{BatchFn, cached::Loader};
use tandem_event_path::{
    commands::Gate,
    store::{
        AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, Filter, PageRequest, StoreError,
    },
};
use tandem_service::graphql::{ApiError, batched};

use super::error;
use crate::{
    domain::{Order, OrderStatus},
    replica::{ReplicaCustomer, ReplicaStore},
};

/// A request for a list of orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OrdersOf {
    /// Only this customer's orders, or everybody's if `None`.
    pub(super) customer_id: Option<String>,
    /// Only orders with this status, or with any status if `None`.
    pub(super) status: Option<OrderStatus>,
    /// Only orders after this id.
    pub(super) after: Option<String>,
    /// The maximum number of orders.
    pub(super) limit: usize,
}

impl OrdersOf {
    fn request(&self) -> PageRequest {
        let customer = self.customer_id.clone().map(|id| ("customerId", id));
        let status = self
            .status
            .map(|status| ("status", status.name().to_owned()));
        PageRequest {
            filter: Filter(customer.into_iter().chain(status).collect()),
            after: self.after.clone(),
            limit: self.limit,
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug)]
pub(super) struct Listed<V> {
    pub(super) items: Arc<Vec<V>>,
    /// Whether the page may be incomplete, because the store is still being filled from the log.
    pub(super) is_partial: bool,
}

/// The result of a read, with an error that a client may see.
type Loaded<V> = Result<V, ApiError>;

/// The loaders of one operation. They cache what they read, so they must not outlive their operation. Each query, each
/// field of a mutation and each update of a subscription has its own loaders. Clones share the cache.
#[derive(Clone)]
pub struct Loaders {
    customers: Loader<String, Loaded<Option<Arc<ReplicaCustomer>>>, Customers>,
    orders: Loader<String, Loaded<Option<Arc<Order>>>, Orders>,
    lists: Loader<OrdersOf, Loaded<Listed<Arc<Order>>>, Lists>,
    changes: Loader<ChangesRequest, Loaded<Listed<ChangeRecord>>, Changes>,
}

impl Loaders {
    /// Creates loaders that read these stores. While the gate is closed, something that is missing may still be in the
    /// log.
    #[must_use]
    pub fn new(
        replica: Arc<dyn ReplicaStore>,
        orders: Arc<dyn AggregateStore<Order>>,
        changes: Arc<dyn ChangeLog>,
        gate: &Gate,
    ) -> Self {
        Self {
            customers: batched(Customers(replica, gate.clone())),
            orders: batched(Orders(Arc::clone(&orders), gate.clone())),
            lists: batched(Lists(orders, gate.clone())),
            changes: batched(Changes(changes, gate.clone())),
        }
    }

    pub(super) async fn customer(&self, id: &str) -> Loaded<Option<Arc<ReplicaCustomer>>> {
        answer(self.customers.try_load(id.to_owned()).await)
    }

    pub(super) async fn order(&self, id: &str) -> Loaded<Option<Arc<Order>>> {
        answer(self.orders.try_load(id.to_owned()).await)
    }

    pub(super) async fn orders_of(&self, list: OrdersOf) -> Loaded<Listed<Arc<Order>>> {
        answer(self.lists.try_load(list).await)
    }

    pub(super) async fn changes(&self, request: ChangesRequest) -> Loaded<Listed<ChangeRecord>> {
        answer(self.changes.try_load(request).await)
    }
}

/// The error for a key without an answer. A batch answers every key that it gets, so this is a fault of the loader.
fn answer<V>(loaded: Result<Loaded<V>, std::io::Error>) -> Loaded<V> {
    loaded.unwrap_or_else(|missing| Err(ApiError::internal(missing)))
}

/// Gives each key its value, or the error to every key.
fn spread<K: Clone + Eq + Hash, V>(
    keys: &[K],
    read: Result<Vec<V>, StoreError>,
) -> HashMap<K, Loaded<V>> {
    match read {
        Ok(values) => keys
            .iter()
            .cloned()
            .zip(values.into_iter().map(Ok))
            .collect(),
        Err(failed) => {
            let failed = error::of_store(&failed);
            keys.iter()
                .map(|key| (key.clone(), Err(failed.clone())))
                .collect()
        }
    }
}

/// Like [`spread`]. While the store is filled, a missing value is an error, because the value may still be in the log.
fn spread_found<K: Clone + Eq + Hash, V>(
    keys: &[K],
    read: Result<Vec<Option<V>>, StoreError>,
    is_filling: bool,
) -> HashMap<K, Loaded<Option<V>>> {
    let mut all = spread(keys, read);
    if is_filling {
        for one in all.values_mut() {
            if matches!(one, Ok(None)) {
                *one = Err(error::filling());
            }
        }
    }
    all
}

struct Customers(Arc<dyn ReplicaStore>, Gate);

impl BatchFn<String, Loaded<Option<Arc<ReplicaCustomer>>>> for Customers {
    async fn load(
        &mut self,
        ids: &[String],
    ) -> HashMap<String, Loaded<Option<Arc<ReplicaCustomer>>>> {
        // Here and below, the gate is read before the store. If the store was filled by then, something that it lacks
        // is not in the log either.
        let is_filling = !self.1.is_open();
        let read = self.0.get_many(ids).await;
        let shared = read.map(|found| found.into_iter().map(|one| one.map(Arc::new)).collect());
        spread_found(ids, shared, is_filling)
    }
}

struct Orders(Arc<dyn AggregateStore<Order>>, Gate);

impl BatchFn<String, Loaded<Option<Arc<Order>>>> for Orders {
    async fn load(&mut self, ids: &[String]) -> HashMap<String, Loaded<Option<Arc<Order>>>> {
        let is_filling = !self.1.is_open();
        let read = self.0.get_many(ids).await;
        let shared = read.map(|found| {
            found
                .into_iter()
                .map(|one| one.map(|stored| Arc::new(stored.state)))
                .collect()
        });
        spread_found(ids, shared, is_filling)
    }
}

struct Lists(Arc<dyn AggregateStore<Order>>, Gate);

impl BatchFn<OrdersOf, Loaded<Listed<Arc<Order>>>> for Lists {
    async fn load(&mut self, lists: &[OrdersOf]) -> HashMap<OrdersOf, Loaded<Listed<Arc<Order>>>> {
        let is_partial = !self.1.is_open();
        let requests: Vec<PageRequest> = lists.iter().map(OrdersOf::request).collect();
        let read = self.0.pages(&requests).await;
        let shared = read.map(|pages| {
            pages
                .into_iter()
                .map(|page| Listed {
                    items: Arc::new(page.into_iter().map(Arc::new).collect()),
                    is_partial,
                })
                .collect()
        });
        spread(lists, shared)
    }
}

struct Changes(Arc<dyn ChangeLog>, Gate);

impl BatchFn<ChangesRequest, Loaded<Listed<ChangeRecord>>> for Changes {
    async fn load(
        &mut self,
        requests: &[ChangesRequest],
    ) -> HashMap<ChangesRequest, Loaded<Listed<ChangeRecord>>> {
        let is_filling = !self.1.is_open();
        let read = self.0.changes(requests).await;
        let listed = read.map(|pages| {
            pages
                .into_iter()
                .zip(requests)
                .map(|(page, request)| Listed {
                    // The trail of one order is written in order, so a full page is complete.
                    is_partial: is_filling && page.len() < request.limit,
                    items: Arc::new(page),
                })
                .collect()
        });
        spread(requests, listed)
    }
}
