//! The subscriptions: changes of orders and customers as they happen.

use std::{sync::Arc, time::Duration};

use async_graphql::{Context, ID, Subscription as SubscriptionRoot};
use futures::{
    Stream, StreamExt, future,
    stream::{self, BoxStream},
};
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, require_or_own};

use super::{
    entities::CustomerNode,
    error,
    feed_item::{CustomerFeedItem, OrderFeedItem, OrderUpdate},
    query::{backing, whose_orders},
    rendering::Renderer,
};
use crate::live::{FeedRequest, Interest, item::OrderItem};

/// The shortest and the longest interval of heartbeats, in seconds.
const HEARTBEAT_SECONDS: std::ops::RangeInclusive<i32> = 5..=300;

/// The root type of subscriptions. The composition requires that it has the name of the GraphQL type.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscription;

/// Reads how a feed begins, and its heartbeat interval.
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
