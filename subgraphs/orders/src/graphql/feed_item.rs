//! The items of the feeds.

use async_graphql::{SimpleObject, Union};
use tandem_service::graphql::DateTime;

use super::{
    Backing,
    entities::{CustomerNode, OrderNode},
    order::ChangeTypeValue,
};
use crate::live::item;

/// One change of an order.
#[derive(SimpleObject)]
pub(super) struct OrderUpdate {
    /// To resume behind this update.
    cursor: String,
    /// Cursor of the item before this one in this subscription; of the first: where the subscription began. Not the one you hold?
    /// Something was missed: resume with `after`.
    previous: String,
    #[graphql(name = "type")]
    kind: ChangeTypeValue,
    /// When it was published, by Kafka's clock or that of the service which published it; null where that is not known.
    published_at: Option<DateTime>,
    /// The order as it was after this change.
    order: OrderNode,
}

/// A page of the orders that there were when the subscription began. What happened since is told behind the last page.
#[derive(SimpleObject)]
pub(super) struct OrderSnapshot {
    /// To go on behind this page.
    cursor: String,
    /// Cursor of the item before this one; of the first: where the subscription began.
    previous: String,
    /// In order of placing; none if there are none.
    orders: Vec<OrderNode>,
    /// Whether this is the last page.
    complete: bool,
}

/// The customer when the subscription began.
#[derive(SimpleObject)]
pub(super) struct CustomerSnapshot {
    /// To go on behind it.
    cursor: String,
    /// Where the subscription began.
    previous: String,
    /// null if orders does not know the customer yet, and for one who was erased.
    customer: Option<CustomerNode>,
}

/// One change of a customer, told when it is readable from the replica.
#[derive(SimpleObject)]
pub(super) struct CustomerChangeUpdate {
    /// To resume behind this update.
    cursor: String,
    /// Cursor of the item before this one; of the first: where the subscription began.
    previous: String,
    /// When it was published, by Kafka's clock or that of the service which published it; null where that is not known.
    published_at: Option<DateTime>,
    /// The customer as it was after this change.
    customer: CustomerNode,
}

/// Nothing happened for a while. Where it does not come in time, the connection is lost.
#[derive(SimpleObject)]
pub(super) struct Heartbeat {
    /// To resume behind it.
    cursor: String,
    /// Cursor of the item before this one; of the first: where the subscription began.
    previous: String,
    /// When it was sent.
    at: DateTime,
}

#[derive(Union)]
pub(super) enum OrderFeedItem {
    Snapshot(OrderSnapshot),
    Update(OrderUpdate),
    Heartbeat(Heartbeat),
}

#[derive(Union)]
pub(super) enum CustomerFeedItem {
    Snapshot(CustomerSnapshot),
    Update(CustomerChangeUpdate),
    Heartbeat(Heartbeat),
}

impl OrderUpdate {
    pub(super) fn new(update: item::OrderUpdate, backing: &Backing) -> Self {
        Self {
            cursor: update.cursor.to_string(),
            previous: update.previous.to_string(),
            kind: update.change_type.into(),
            published_at: update.published_at.map(DateTime::from),
            order: OrderNode::new(update.order, backing.loaders()),
        }
    }
}

impl From<item::Heartbeat> for Heartbeat {
    fn from(heartbeat: item::Heartbeat) -> Self {
        Self {
            cursor: heartbeat.cursor.to_string(),
            previous: heartbeat.previous.to_string(),
            at: heartbeat.at.into(),
        }
    }
}

impl OrderFeedItem {
    pub(super) fn new(item: item::OrderItem, backing: &Backing) -> Self {
        match item {
            item::OrderItem::Snapshot(page) => {
                let loaders = backing.loaders();
                let node = |order| OrderNode::new(order, loaders.clone());
                Self::Snapshot(OrderSnapshot {
                    cursor: page.cursor.to_string(),
                    previous: page.previous.to_string(),
                    orders: page.orders.into_iter().map(node).collect(),
                    complete: page.complete,
                })
            }
            item::OrderItem::Update(update) => Self::Update(OrderUpdate::new(update, backing)),
            item::OrderItem::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat.into()),
        }
    }
}

impl CustomerFeedItem {
    pub(super) fn new(item: item::CustomerItem, backing: &Backing) -> Self {
        let node = |customer| CustomerNode::known(customer, backing.loaders());
        match item {
            item::CustomerItem::Snapshot(snapshot) => Self::Snapshot(CustomerSnapshot {
                cursor: snapshot.cursor.to_string(),
                previous: snapshot.previous.to_string(),
                customer: snapshot.customer.map(node),
            }),
            item::CustomerItem::Update(update) => Self::Update(CustomerChangeUpdate {
                cursor: update.cursor.to_string(),
                previous: update.previous.to_string(),
                published_at: update.published_at.map(DateTime::from),
                customer: node(update.customer),
            }),
            item::CustomerItem::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat.into()),
        }
    }
}
