//! The part of orders in replacing the sealing key. The wrapped data keys in the replica and in orders are re-wrapped.

use std::sync::Arc;

use async_trait::async_trait;
use tandem_assembly::admin::rotation::{RewrappedPage, Rewraps};
use tandem_event_path::{
    data_keys::DataKey,
    sealing::{OpenError, Sealer},
    store::{AggregateStore, Filter, PageRequest, StoreError},
};

use crate::{
    domain::Order,
    replica::{Replaces, ReplicaCustomer, ReplicaStore},
};

/// The number of rows that are processed together.
const PAGE: usize = 500;

/// The customers of the replica.
pub struct RewrapReplica {
    /// The store of the replica.
    pub store: Arc<dyn ReplicaStore>,
    /// The newest sealing key and the older ones.
    pub sealer: Sealer,
}

/// The orders.
pub struct RewrapOrders {
    /// The store of orders.
    pub orders: Arc<dyn AggregateStore<Order>>,
    /// The newest sealing key and the older ones.
    pub sealer: Sealer,
}

/// The data key, wrapped with the newest sealing key. `None` if there is no key, or it already is.
fn rewrapped(
    sealer: &Sealer,
    data_key: Option<&str>,
    customer_id: &str,
) -> Result<Option<String>, OpenError> {
    data_key.map_or(Ok(None), |wrapped| {
        DataKey::rewrap(sealer, wrapped, customer_id)
    })
}

#[async_trait]
impl Rewraps for RewrapReplica {
    fn name(&self) -> &'static str {
        "replica"
    }

    async fn rewrap_some(&self, after: Option<&str>) -> Result<RewrappedPage, StoreError> {
        let customers = self.store.page(after, PAGE).await?;
        let mut page = RewrappedPage {
            looked_at: customers.len() as u64,
            last: customers.last().map(|customer| customer.id.clone()),
            ..RewrappedPage::default()
        };
        let mut sealed: Vec<ReplicaCustomer> = Vec::with_capacity(customers.len());
        for mut customer in customers {
            match rewrapped(&self.sealer, customer.data_key.as_deref(), &customer.id) {
                Ok(None) => {}
                Ok(wrapped) => {
                    customer.data_key = wrapped;
                    page.rewrapped += 1;
                }
                Err(_) => {
                    page.unopened.push(customer.id);
                    continue;
                }
            }
            sealed.push(customer);
        }
        // Customers that need no change are written too. The replica may show writes that are not durable yet, so a key
        // that another instance has re-wrapped may still be lost.
        self.store.upsert(&sealed, Replaces::OlderOrSame).await?;
        Ok(page)
    }
}

#[async_trait]
impl Rewraps for RewrapOrders {
    fn name(&self) -> &'static str {
        "orders"
    }

    async fn rewrap_some(&self, after: Option<&str>) -> Result<RewrappedPage, StoreError> {
        let request = PageRequest {
            filter: Filter::all(),
            after: after.map(str::to_owned),
            limit: PAGE,
        };
        let pages = self.orders.pages(&[request]).await?;
        let orders: Vec<Order> = pages.into_iter().flatten().collect();
        let mut page = RewrappedPage {
            looked_at: orders.len() as u64,
            last: orders.last().map(|order| order.id.clone()),
            ..RewrappedPage::default()
        };
        let mut changed: Vec<Order> = Vec::new();
        for mut order in orders {
            match rewrapped(&self.sealer, order.data_key.as_deref(), &order.customer_id) {
                Ok(None) => {}
                Ok(wrapped) => {
                    order.data_key = wrapped;
                    changed.push(order);
                }
                Err(_) => page.unopened.push(order.id),
            }
        }
        self.orders.restore(&changed).await?;
        page.rewrapped = changed.len() as u64;
        Ok(page)
    }
}
