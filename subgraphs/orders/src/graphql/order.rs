//! The parts of an order, and the entries of its audit trail.

use async_graphql::{Enum, ID, SimpleObject};
use tandem_event_path::store::ChangeRecord;
use tandem_service::graphql::{ApiError, DateTime, Decimal};

use crate::domain;

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
