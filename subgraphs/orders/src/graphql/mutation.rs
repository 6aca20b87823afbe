//! Changes of orders.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};
use tandem_kit::{
    graphql::{ApiError, Caller},
    trace_context::TraceContext,
};

use super::{
    Backing, error,
    input::PlaceOrderInput,
    order::{OrderNode, OrderStatusValue},
    query::backing,
};
use crate::{commands::Origin, domain::Order};

/// The root of changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutation;

/// The order after the change.
#[derive(SimpleObject)]
pub(super) struct OrderPayload {
    order: OrderNode,
}

impl OrderPayload {
    fn new(order: Order, backing: &Backing) -> Self {
        Self {
            // Loaders of its own: what an earlier field of the same mutation read may be old by now.
            order: OrderNode::new(Arc::new(order), backing.loaders()),
        }
    }
}

fn origin(ctx: &Context<'_>) -> Origin {
    let caller = ctx.data_opt::<Caller>().cloned().unwrap_or_default();
    Origin {
        changed_by: caller.as_str().to_owned(),
        traceparent: ctx
            .data_opt::<TraceContext>()
            .map(|trace| trace.child().to_string()),
    }
}

fn expected(revision: Option<i32>) -> Result<Option<i64>, ApiError> {
    match revision {
        Some(revision) if revision < 1 => Err(ApiError::bad_user_input(
            "expectedRevision",
            "`expectedRevision` is less than 1; the first revision of an order is 1",
        )),
        revision => Ok(revision.map(i64::from)),
    }
}

#[Object]
impl Mutation {
    /// Unknown customer: code CUSTOMER_UNKNOWN. The shipping address is copied into the order.
    async fn place_order(
        &self,
        ctx: &Context<'_>,
        input: PlaceOrderInput,
    ) -> Result<OrderPayload, ApiError> {
        let backing = backing(ctx)?;
        let placed = backing.commands.place(input.into(), &origin(ctx)).await;
        let order = placed.map_err(|refused| error::of_command(refused, "input."))?;
        Ok(OrderPayload::new(order, backing))
    }

    /// PLACED -> CONFIRMED -> SHIPPED -> DELIVERED, one step at a time; anything else: code INVALID_TRANSITION.
    async fn advance_order(
        &self,
        ctx: &Context<'_>,
        id: ID,
        to: OrderStatusValue,
        expected_revision: Option<i32>,
    ) -> Result<OrderPayload, ApiError> {
        let backing = backing(ctx)?;
        let advanced = backing
            .commands
            .advance(&id, to.into(), expected(expected_revision)?, &origin(ctx))
            .await;
        let order = advanced.map_err(|refused| error::of_command(refused, ""))?;
        Ok(OrderPayload::new(order, backing))
    }

    /// Possible until SHIPPED.
    async fn cancel_order(
        &self,
        ctx: &Context<'_>,
        id: ID,
        reason: Option<String>,
        expected_revision: Option<i32>,
    ) -> Result<OrderPayload, ApiError> {
        let backing = backing(ctx)?;
        let cancelled = backing
            .commands
            .cancel(&id, reason, expected(expected_revision)?, &origin(ctx))
            .await;
        let order = cancelled.map_err(|refused| error::of_command(refused, ""))?;
        Ok(OrderPayload::new(order, backing))
    }
}
