//! Changes as they happen.

use std::sync::Arc;

use async_graphql::{Context, ID, SimpleObject, Subscription as SubscriptionRoot};
use futures::{Stream, StreamExt};
use tandem_kit::graphql::ApiError;

use super::{
    customer::CustomerNode,
    error,
    order::{ChangeTypeValue, OrderNode},
    query::backing,
};
use crate::live::Interest;

/// The root of subscriptions. Its name is that of the GraphQL type: composition wants it so.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subscription;

/// One change of an order.
#[derive(SimpleObject)]
pub(super) struct OrderUpdate {
    /// To resume behind this update.
    cursor: String,
    #[graphql(name = "type")]
    kind: ChangeTypeValue,
    /// The order as it was after this change.
    order: OrderNode,
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
    ) -> Result<impl Stream<Item = Result<OrderUpdate, ApiError>> + use<>, ApiError> {
        let backing = backing(ctx)?.clone();
        let interest = Interest {
            customer_id: customer_id.map(|id| id.0),
            order_id: order_id.map(|id| id.0),
        };
        let updates = backing
            .live
            .orders
            .subscribe(interest, after.as_deref())
            .map_err(error::of_live)?;
        Ok(updates.map(move |update| {
            let update = update.map_err(error::of_live)?;
            Ok(OrderUpdate {
                cursor: update.cursor,
                kind: update.change_type.into(),
                order: OrderNode::new(update.order, backing.loaders()),
            })
        }))
    }

    /// Every change of the replicated customer, after it is readable from the replica.
    async fn customer_updated(
        &self,
        ctx: &Context<'_>,
        id: ID,
    ) -> Result<impl Stream<Item = Result<CustomerNode, ApiError>> + use<>, ApiError> {
        let backing = backing(ctx)?.clone();
        let updates = backing.live.customers.subscribe(&id).await;
        Ok(updates.map(move |update| {
            let customer = update.map_err(error::of_live)?;
            Ok(CustomerNode::known(Arc::new(customer), backing.loaders()))
        }))
    }
}
