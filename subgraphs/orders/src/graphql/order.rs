//! The order entity, its parts, and pages of orders.

use std::sync::Arc;

use async_graphql::{Enum, ID, Object, SimpleObject};
use tandem_event_path::store::{ChangeRecord, ChangesRequest};
use tandem_service::graphql::{ApiError, Connection, DateTime, Decimal, PageRequest, connection};

use super::{
    Loaders,
    customer::{Address, CustomerNode},
    loaders::OrdersOf,
};
use crate::{
    domain::{self, Order},
    replica::event::is_customer_id,
};

/// An order with the loaders for what hangs on it.
pub(super) struct OrderNode {
    order: Arc<Order>,
    loaders: Loaders,
}

impl OrderNode {
    pub(super) fn new(order: Arc<Order>, loaders: Loaders) -> Self {
        Self { order, loaders }
    }
}

/// An order of one customer.
#[Object(name = "Order")]
impl OrderNode {
    async fn id(&self) -> ID {
        ID(self.order.id.clone())
    }

    async fn customer(&self) -> CustomerNode {
        CustomerNode::reference(self.order.customer_id.clone(), self.loaders.clone())
    }

    async fn items(&self) -> Vec<OrderItem> {
        self.order.items.iter().map(OrderItem::from).collect()
    }

    /// The exact sum of price times quantity.
    async fn total(&self) -> Decimal {
        self.order.total
    }

    async fn status(&self) -> OrderStatusValue {
        self.order.status.into()
    }

    /// The customer's address as it was when the order was placed; null if the customer had none or was erased.
    async fn ship_to(&self) -> Option<Address> {
        self.order.ship_to.clone().map(Address::from)
    }

    async fn placed_at(&self) -> DateTime {
        self.order.placed_at.into()
    }

    async fn updated_at(&self) -> DateTime {
        self.order.updated_at.into()
    }

    /// 1 when placed, +1 with every change.
    async fn revision(&self) -> i64 {
        self.order.revision
    }

    /// Why it was cancelled, if it was and somebody said why.
    async fn cancellation_reason(&self) -> Option<&str> {
        self.order.cancellation_reason.as_deref()
    }

    /// The audit trail, oldest first: every state change ever made.
    async fn changes(
        &self,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<i64, OrderChange>, ApiError> {
        let page = PageRequest::<i64>::new(first, after.as_deref())?;
        let request = ChangesRequest {
            subject: self.order.id.clone(),
            after_revision: page.after.unwrap_or(0),
            limit: page.fetch_limit(),
        };
        let records = self.loaders.changes(request).await?;
        let nodes = records
            .iter()
            .map(|record| Ok((record.revision, OrderChange::try_from(record)?)))
            .collect::<Result<Vec<_>, ApiError>>()?;
        Ok(connection(&page, nodes))
    }
}

/// A page of orders in order of id, which is the order of placing.
pub(super) async fn orders_page(
    loaders: &Loaders,
    customer_id: Option<String>,
    status: Option<OrderStatusValue>,
    first: i32,
    after: Option<&str>,
) -> Result<Connection<String, OrderNode>, ApiError> {
    let page = PageRequest::<String>::new(first, after)?;
    if customer_id.as_deref().is_some_and(|id| !is_customer_id(id)) {
        return Ok(connection(&page, Vec::new()));
    }
    let list = OrdersOf {
        customer_id,
        status: status.map(domain::OrderStatus::from),
        after: page.after.clone(),
        limit: page.fetch_limit(),
    };
    let orders = loaders.orders_of(list).await?;
    let nodes = orders
        .iter()
        .map(|order| {
            let node = OrderNode::new(Arc::clone(order), loaders.clone());
            (order.id.clone(), node)
        })
        .collect();
    Ok(connection(&page, nodes))
}

/// A number of pieces of one product.
#[derive(SimpleObject)]
pub(super) struct OrderItem {
    product: Product,
    quantity: i32,
}

impl From<&domain::OrderItem> for OrderItem {
    fn from(item: &domain::OrderItem) -> Self {
        Self {
            product: Product {
                guid: ID(item.product.guid.clone()),
                title: item.product.title.clone(),
                description: item.product.description.clone(),
                price: item.product.price,
            },
            quantity: item.quantity,
        }
    }
}

/// A product as it was when it was ordered.
#[derive(SimpleObject)]
pub(super) struct Product {
    guid: ID,
    title: String,
    description: Option<String>,
    price: Decimal,
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "OrderStatus", remote = "domain::OrderStatus")]
pub(super) enum OrderStatusValue {
    Placed,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "OrderChangeType", remote = "domain::ChangeType")]
pub(super) enum ChangeTypeValue {
    Placed,
    Confirmed,
    Shipped,
    Delivered,
    Cancelled,
}

/// One entry of an order's audit trail.
#[derive(SimpleObject)]
pub(super) struct OrderChange {
    /// CloudEvents id of the event that carried this change.
    event_id: ID,
    revision: i64,
    #[graphql(name = "type")]
    kind: ChangeTypeValue,
    changed_at: DateTime,
    /// Who asked: the token's subject, or `anonymous`.
    changed_by: String,
    /// Top-level parts that differ from the revision before.
    changed_fields: Vec<String>,
}

impl TryFrom<&ChangeRecord> for OrderChange {
    type Error = ApiError;

    fn try_from(record: &ChangeRecord) -> Result<Self, ApiError> {
        let kind = domain::ChangeType::from_name(&record.kind).ok_or_else(|| {
            ApiError::internal(format!("the audit trail holds the change {}", record.kind))
        })?;
        Ok(Self {
            event_id: ID(record.event_id.clone()),
            revision: record.revision,
            kind: kind.into(),
            changed_at: record.changed_at.into(),
            changed_by: record.changed_by.clone(),
            changed_fields: record.changed_fields.clone(),
        })
    }
}
