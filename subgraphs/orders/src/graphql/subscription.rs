//! Changes as they happen.

use std::{sync::Arc, time::Duration};

use async_graphql::{Context, ID, SimpleObject, Subscription as SubscriptionRoot, Union};
use futures::{
    Stream, StreamExt, future,
    stream::{self, BoxStream},
};
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, DateTime, require_or_own};

use super::{
    Backing,
    customer::CustomerNode,
    error,
    order::{ChangeTypeValue, OrderNode},
    query::{backing, whose_orders},
    rendering::Renderer,
};
use crate::live::{
    FeedRequest, Interest,
    item::{self, OrderItem},
};

/// The shortest and the longest silence before a heartbeat, in seconds.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<i32> = 5..=300;

/// The root of subscriptions. Its name is that of the GraphQL type: composition wants it so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscription;

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
            cursor: update.cursor,
            previous: update.previous,
            kind: update.change_type.into(),
            published_at: update.published_at.map(DateTime::from),
            order: OrderNode::new(update.order, backing.loaders()),
        }
    }
}

impl From<item::Heartbeat> for Heartbeat {
    fn from(heartbeat: item::Heartbeat) -> Self {
        Self {
            cursor: heartbeat.cursor,
            previous: heartbeat.previous,
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
                    cursor: page.cursor,
                    previous: page.previous,
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
    fn new(item: item::CustomerItem, backing: &Backing) -> Self {
        let node = |customer| CustomerNode::known(customer, backing.loaders());
        match item {
            item::CustomerItem::Snapshot(snapshot) => Self::Snapshot(CustomerSnapshot {
                cursor: snapshot.cursor,
                previous: snapshot.previous,
                customer: snapshot.customer.map(node),
            }),
            item::CustomerItem::Update(update) => Self::Update(CustomerChangeUpdate {
                cursor: update.cursor,
                previous: update.previous,
                published_at: update.published_at.map(DateTime::from),
                customer: node(update.customer),
            }),
            item::CustomerItem::Heartbeat(heartbeat) => Self::Heartbeat(heartbeat.into()),
        }
    }
}

/// Reads how a feed is to begin.
fn request(
    after: Option<&str>,
    snapshot: bool,
    heartbeat_seconds: i32,
) -> Result<FeedRequest<'_>, ApiError> {
    let seconds = u64::try_from(heartbeat_seconds)
        .ok()
        .filter(|_| HEARTBEAT_SECONDS.contains(&heartbeat_seconds))
        .ok_or_else(|| {
            ApiError::bad_user_input(
                "heartbeatSeconds",
                format!(
                    "`heartbeatSeconds` is {heartbeat_seconds}; it must be from {} to {}",
                    HEARTBEAT_SECONDS.start(),
                    HEARTBEAT_SECONDS.end()
                ),
            )
        })?;
    Ok(FeedRequest {
        after,
        snapshot,
        heartbeat: Some(Duration::from_secs(seconds)),
    })
}

fn renderer<'a>(ctx: &Context<'a>) -> Result<&'a Renderer, ApiError> {
    ctx.data_opt::<Renderer>()
        .ok_or_else(|| ApiError::internal("nothing writes responses"))
}

#[SubscriptionRoot]
impl Subscription {
    /// Every change of the matching orders, exactly once and in order per order. `after` resumes behind that cursor without a gap.
    async fn order_updated(
        &self,
        ctx: &Context<'_>,
        customer_id: Option<ID>,
        order_id: Option<ID>,
        after: Option<String>,
    ) -> Result<BoxStream<'static, Result<OrderUpdate, ApiError>>, ApiError> {
        let backing = backing(ctx)?.clone();
        let interest = Interest {
            customer_id: whose_orders(ctx, customer_id.map(|id| id.0))?,
            order_id: order_id.map(|id| id.0),
        };
        let updates = backing
            .live
            .orders
            .subscribe(interest, after.as_deref())
            .map_err(error::of_live)?;
        let updates = updates.map(|update| update.map(OrderItem::Update));
        let Some(updates) = renderer(ctx)?.hand_over(ctx, updates) else {
            return Ok(stream::empty().boxed());
        };
        let updates = updates.filter_map(move |update| {
            future::ready(match update {
                Ok(OrderItem::Update(update)) => Some(Ok(OrderUpdate::new(update, &backing))),
                Ok(OrderItem::Snapshot(_) | OrderItem::Heartbeat(_)) => None,
                Err(error) => Some(Err(error::of_live(error))),
            })
        });
        Ok(updates.boxed())
    }

    /// Everything that `orderUpdated` gives, and what it takes to know that nothing was missed. `snapshot: true` begins with the present
    /// orders (OrderSnapshot items, `complete: true` on the last), then every change since that instant: none twice, none missing.
    /// A Heartbeat comes when nothing else did for `heartbeatSeconds` (5..300). With `after` it goes on behind that cursor: with what is
    /// left of a snapshot that was cut off, then with the changes since.
    async fn order_feed(
        &self,
        ctx: &Context<'_>,
        customer_id: Option<ID>,
        order_id: Option<ID>,
        after: Option<String>,
        #[graphql(default = false)] snapshot: bool,
        #[graphql(default = 15)] heartbeat_seconds: i32,
    ) -> Result<BoxStream<'static, Result<OrderFeedItem, ApiError>>, ApiError> {
        let backing = backing(ctx)?.clone();
        let interest = Interest {
            customer_id: whose_orders(ctx, customer_id.map(|id| id.0))?,
            order_id: order_id.map(|id| id.0),
        };
        let request = request(after.as_deref(), snapshot, heartbeat_seconds)?;
        let items = backing
            .live
            .orders
            .follow(interest, request)
            .map_err(error::of_live)?;
        let Some(items) = renderer(ctx)?.hand_over(ctx, items) else {
            return Ok(stream::empty().boxed());
        };
        let items = items.map(move |item| {
            let item = item.map_err(error::of_live)?;
            Ok(OrderFeedItem::new(item, &backing))
        });
        Ok(items.boxed())
    }

    /// Every change of the replicated customer, after it is readable from the replica.
    async fn customer_updated(
        &self,
        ctx: &Context<'_>,
        id: ID,
    ) -> Result<impl Stream<Item = Result<CustomerNode, ApiError>> + use<>, ApiError> {
        let backing = backing(ctx)?.clone();
        require_or_own(ctx, Scope::CustomersRead, &id)?;
        let updates = backing.live.customers.subscribe(&id).await;
        Ok(updates.map(move |update| {
            let customer = update.map_err(error::of_live)?;
            Ok(CustomerNode::known(Arc::new(customer), backing.loaders()))
        }))
    }

    /// The same for one customer as orders knows it: `snapshot: true` begins with the customer, then comes every change since.
    async fn customer_feed(
        &self,
        ctx: &Context<'_>,
        id: ID,
        after: Option<String>,
        #[graphql(default = false)] snapshot: bool,
        #[graphql(default = 15)] heartbeat_seconds: i32,
    ) -> Result<impl Stream<Item = Result<CustomerFeedItem, ApiError>> + use<>, ApiError> {
        let backing = backing(ctx)?.clone();
        require_or_own(ctx, Scope::CustomersRead, &id)?;
        let request = request(after.as_deref(), snapshot, heartbeat_seconds)?;
        let items = backing
            .live
            .customers
            .follow(&id, request)
            .await
            .map_err(error::of_live)?;
        Ok(items.map(move |item| {
            let item = item.map_err(error::of_live)?;
            Ok(CustomerFeedItem::new(item, &backing))
        }))
    }
}
