//! Batched reads: what the resolvers of one operation ask for at the same time is read at once.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use dataloader::{BatchFn, cached::Loader};
use tandem_event_path::store::{
    AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, Filter, PageRequest, StoreError,
};
use tandem_service::graphql::{ApiError, batched};

use super::error;
use crate::{
    domain::{Order, OrderStatus},
    replica::{ReplicaCustomer, ReplicaStore},
};

/// A list of a customer's orders.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct OrdersOf {
    /// Whose; everybody's if `None`.
    pub(super) customer_id: Option<String>,
    /// In which state; in any if `None`.
    pub(super) status: Option<OrderStatus>,
    /// Behind this id.
    pub(super) after: Option<String>,
    /// At most so many.
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

/// What a read came to; its error is shared by all who wait for it.
type Loaded<V> = Result<V, Arc<StoreError>>;
type Many<V> = Arc<Vec<V>>;

/// The loaders of one operation. They remember what they read, so they must not outlive what they are for: each query,
/// each field of a mutation and each update of a subscription has its own. Clones share it.
#[derive(Clone)]
pub struct Loaders {
    customers: Loader<String, Loaded<Option<Arc<ReplicaCustomer>>>, Customers>,
    orders: Loader<String, Loaded<Option<Arc<Order>>>, Orders>,
    lists: Loader<OrdersOf, Loaded<Many<Arc<Order>>>, Lists>,
    changes: Loader<ChangesRequest, Loaded<Many<ChangeRecord>>, Changes>,
}

impl Loaders {
    /// Loaders that read these stores.
    #[must_use]
    pub fn new(
        replica: Arc<dyn ReplicaStore>,
        orders: Arc<dyn AggregateStore<Order>>,
        changes: Arc<dyn ChangeLog>,
    ) -> Self {
        Self {
            customers: batched(Customers(replica)),
            orders: batched(Orders(Arc::clone(&orders))),
            lists: batched(Lists(orders)),
            changes: batched(Changes(changes)),
        }
    }

    pub(super) async fn customer(
        &self,
        id: &str,
    ) -> Result<Option<Arc<ReplicaCustomer>>, ApiError> {
        answer(self.customers.try_load(id.to_owned()).await)
    }

    pub(super) async fn order(&self, id: &str) -> Result<Option<Arc<Order>>, ApiError> {
        answer(self.orders.try_load(id.to_owned()).await)
    }

    pub(super) async fn orders_of(&self, list: OrdersOf) -> Result<Many<Arc<Order>>, ApiError> {
        answer(self.lists.try_load(list).await)
    }

    pub(super) async fn changes(
        &self,
        request: ChangesRequest,
    ) -> Result<Many<ChangeRecord>, ApiError> {
        answer(self.changes.try_load(request).await)
    }
}

fn answer<V>(loaded: Result<Loaded<V>, std::io::Error>) -> Result<V, ApiError> {
    match loaded {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failed)) => Err(error::of_store(&failed)),
        // A batch answers all of its keys, so this does not happen.
        Err(missing) => Err(ApiError::internal(missing)),
    }
}

/// Gives every key its value, or every key the error.
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
            let failed = Arc::new(failed);
            keys.iter()
                .map(|key| (key.clone(), Err(Arc::clone(&failed))))
                .collect()
        }
    }
}

struct Customers(Arc<dyn ReplicaStore>);

impl BatchFn<String, Loaded<Option<Arc<ReplicaCustomer>>>> for Customers {
    async fn load(
        &mut self,
        ids: &[String],
    ) -> HashMap<String, Loaded<Option<Arc<ReplicaCustomer>>>> {
        let read = self.0.get_many(ids).await;
        let shared = read.map(|found| found.into_iter().map(|one| one.map(Arc::new)).collect());
        spread(ids, shared)
    }
}

struct Orders(Arc<dyn AggregateStore<Order>>);

impl BatchFn<String, Loaded<Option<Arc<Order>>>> for Orders {
    async fn load(&mut self, ids: &[String]) -> HashMap<String, Loaded<Option<Arc<Order>>>> {
        let read = self.0.get_many(ids).await;
        let shared = read.map(|found| {
            found
                .into_iter()
                .map(|one| one.map(|stored| Arc::new(stored.state)))
                .collect()
        });
        spread(ids, shared)
    }
}

struct Lists(Arc<dyn AggregateStore<Order>>);

impl BatchFn<OrdersOf, Loaded<Many<Arc<Order>>>> for Lists {
    async fn load(&mut self, lists: &[OrdersOf]) -> HashMap<OrdersOf, Loaded<Many<Arc<Order>>>> {
        let requests: Vec<PageRequest> = lists.iter().map(OrdersOf::request).collect();
        let read = self.0.pages(&requests).await;
        let shared = read.map(|pages| {
            pages
                .into_iter()
                .map(|page| Arc::new(page.into_iter().map(Arc::new).collect()))
                .collect()
        });
        spread(lists, shared)
    }
}

struct Changes(Arc<dyn ChangeLog>);

impl BatchFn<ChangesRequest, Loaded<Many<ChangeRecord>>> for Changes {
    async fn load(
        &mut self,
        requests: &[ChangesRequest],
    ) -> HashMap<ChangesRequest, Loaded<Many<ChangeRecord>>> {
        let read = self.0.changes(requests).await;
        spread(
            requests,
            read.map(|pages| pages.into_iter().map(Arc::new).collect()),
        )
    }
}
