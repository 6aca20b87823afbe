//! What orders holds while the sealing key is replaced: the wrapped data keys of its replica and of its orders are wrapped anew.

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

/// Rows gone through together.
const PAGE: usize = 500;

/// The customers of the replica.
pub struct RewrapReplica {
    /// Where they are.
    pub store: Arc<dyn ReplicaStore>,
    /// All keys.
    pub sealer: Sealer,
}

/// The orders.
pub struct RewrapOrders {
    /// Where they are.
    pub orders: Arc<dyn AggregateStore<Order>>,
    /// All keys.
    pub sealer: Sealer,
}

/// A wrapped key wrapped anew, if there is one and it is not yet.
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
        // Also those that need nothing: the replica shows what is not certain to stay, and what another instance has wrapped anew may be lost yet.
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
