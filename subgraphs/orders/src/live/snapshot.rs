//! The snapshot: the orders that exist when a subscription begins, in pages.

use std::sync::Arc;

use tandem_event_path::{
    log::Offsets,
    store::{
        AggregateStore, ChangeLog, ChangesRequest, Filter, PageRequest, ReadBarrier, StoreError,
    },
};

use super::Interest;
use crate::domain::Order;

/// The number of orders of a page.
pub(super) const PAGE: usize = 100;

/// A page of a snapshot.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) orders: Vec<Arc<Order>>,
    pub(super) complete: bool,
    /// Revisions of these orders whose events come after the position at which the snapshot began, or are not in the
    /// log yet.
    pub(super) ahead: Vec<(String, i64)>,
}

/// Reads snapshots. Clones share the stores.
#[derive(Clone)]
pub(super) struct Snapshots {
    orders: Arc<dyn AggregateStore<Order>>,
    changes: Arc<dyn ChangeLog>,
    barrier: ReadBarrier,
}

impl Snapshots {
    pub(super) fn new(
        orders: Arc<dyn AggregateStore<Order>>,
        changes: Arc<dyn ChangeLog>,
        barrier: ReadBarrier,
    ) -> Self {
        Self {
            orders,
            changes,
            barrier,
        }
    }

    /// Must be called once before the first page, after the position in the log was taken. Later reads then show
    /// everything that was stored before.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(super) async fn begin(&self) -> Result<(), StoreError> {
        self.barrier.pass().await
    }

    /// The page of orders after this id. `since` is the position in the log that was taken before the store is read.
    /// Everything published before it is in the store. Some of what is in the store is published after it.
    ///
    /// # Errors
    /// When a store does not answer.
    pub(super) async fn page(
        &self,
        interest: &Interest,
        behind: &str,
        since: &Offsets,
    ) -> Result<Page, StoreError> {
        let (orders, complete) = match &interest.order_id {
            Some(id) => (self.one(id, interest).await?, true),
            None => self.several(interest, behind).await?,
        };
        let ahead = self.ahead(&orders, since).await?;
        Ok(Page {
            orders: orders.into_iter().map(Arc::new).collect(),
            complete,
            ahead,
        })
    }

    async fn one(&self, id: &str, interest: &Interest) -> Result<Vec<Order>, StoreError> {
        if !Order::is_id(id) {
            return Ok(Vec::new());
        }
        let found = self.orders.get_many(&[id.to_owned()]).await?;
        let found = found.into_iter().flatten().map(|stored| stored.state);
        Ok(found.filter(|order| interest.wants(order)).collect())
    }

    async fn several(
        &self,
        interest: &Interest,
        behind: &str,
    ) -> Result<(Vec<Order>, bool), StoreError> {
        let mut orders = self.list(interest, behind, PAGE + 1).await?;
        if orders.len() > PAGE {
            orders.truncate(PAGE);
            return Ok((orders, false));
        }
        // A short page is the last one, or it ended early because its documents are large.
        let is_last = match orders.last() {
            Some(last) => self.list(interest, &last.id, 1).await?.is_empty(),
            None => true,
        };
        Ok((orders, is_last))
    }

    async fn list(
        &self,
        interest: &Interest,
        behind: &str,
        limit: usize,
    ) -> Result<Vec<Order>, StoreError> {
        let customer = interest.customer_id.clone().map(|id| ("customerId", id));
        let request = PageRequest {
            filter: Filter(customer.into_iter().collect()),
            after: Some(behind.to_owned()).filter(|id| !id.is_empty()),
            limit,
        };
        let pages = self.orders.pages(&[request]).await?;
        Ok(pages.into_iter().next().unwrap_or_default())
    }

    /// Finds the revisions that are ahead of the log. The audit trail knows the position where each change was first
    /// seen.
    async fn ahead(
        &self,
        orders: &[Order],
        since: &Offsets,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let requests: Vec<ChangesRequest> = orders
            .iter()
            .map(|order| ChangesRequest {
                subject: order.id.clone(),
                after_revision: order.revision - 1,
                limit: 1,
            })
            .collect();
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.changes.changes(&requests).await?;
        Ok(orders
            .iter()
            .zip(found)
            .filter(|(order, records)| {
                !records.iter().any(|record| {
                    record.revision == order.revision
                        && since
                            .get(&record.partition)
                            .is_some_and(|next| record.offset < *next)
                })
            })
            .map(|(order, _)| (order.id.clone(), order.revision))
            .collect())
    }
}
