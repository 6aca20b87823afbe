//! The mutations of orders. Each checks what the caller may change, and which of the selected fields it may see, and
//! then calls the command.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};
use tandem_authentication::Scope;
use tandem_runtime::{consistency::Kind, trace_context::TraceContext};
use tandem_service::{
    graphql::{ApiError, Caller, access, refuse_access, require, require_or_own, wrote},
    web::consistency::Behind,
};

use super::{
    Backing,
    entities::OrderNode,
    error,
    input::PlaceOrderInput,
    order::OrderStatusValue,
    query::{backing, customer_of_order},
    shown::{require_shown, require_shown_of_order},
};
use crate::{
    commands::{Origin, Refused},
    domain::{Order, OrderError},
};

/// The root type of mutations.
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
            // The order has its own loaders: what an earlier field of the same mutation has read may be out of date.
            order: OrderNode::new(Arc::new(order), backing.loaders()),
        }
    }
}

fn origin(ctx: &Context<'_>) -> Origin {
    let caller = ctx.data_opt::<Caller>().cloned().unwrap_or_default();
    Origin {
        changed_by: caller.as_str().to_owned(),
        traceparent: ctx.data_opt::<TraceContext>().map(ToString::to_string),
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

/// The error of a refused order. A customer whom the caller wrote, and whom the replica does not show yet, is not
/// reported as unknown.
fn refuse_placement(ctx: &Context<'_>, refused: Refused) -> ApiError {
    if let Refused::Rule(OrderError::CustomerUnknown { customer_id }) = &refused
        && let Some(behind) = ctx.data_opt::<Behind>()
        && behind.has(Kind::Customer, customer_id)
    {
        return error::customer_behind(customer_id);
    }
    error::of_command(refused, "input.")
}

/// Checks that the caller may cancel the order. Customers may cancel their own orders.
async fn may_cancel(ctx: &Context<'_>, id: &str) -> Result<(), ApiError> {
    let access = access(ctx);
    let own = access.narrowed_to(Scope::OrdersWrite);
    // With the scope, the owner of the order does not matter.
    if own.map_err(refuse_access)?.is_none() {
        return Ok(());
    }
    let customer_id = customer_of_order(ctx, id).await?;
    require_or_own(ctx, Scope::OrdersWrite, &customer_id)
}

#[Object]
impl Mutation {
    /// Unknown customer: code CUSTOMER_UNKNOWN. The shipping address is copied into the order.
    #[graphql(requires_scopes = "orders:write", requires_scopes = "self")]
    async fn place_order(
        &self,
        ctx: &Context<'_>,
        input: PlaceOrderInput,
    ) -> Result<OrderPayload, ApiError> {
        require_or_own(ctx, Scope::OrdersWrite, &input.customer_id)?;
        require_shown(ctx, &input.customer_id)?;
        let backing = backing(ctx)?;
        let origin = origin(ctx);
        let request = input.asked_by(&origin.changed_by)?;
        let placed = backing.commands.place(request, &origin).await;
        let order = placed.map_err(|refused| refuse_placement(ctx, refused))?;
        wrote(ctx, Kind::Order, &order.id, order.revision);
        Ok(OrderPayload::new(order, backing))
    }

    /// PLACED -> CONFIRMED -> SHIPPED -> DELIVERED, one step at a time; anything else: code INVALID_TRANSITION.
    #[graphql(requires_scopes = "orders:write")]
    async fn advance_order(
        &self,
        ctx: &Context<'_>,
        id: ID,
        to: OrderStatusValue,
        expected_revision: Option<i32>,
    ) -> Result<OrderPayload, ApiError> {
        require(ctx, Scope::OrdersWrite)?;
        require_shown_of_order(ctx, &id).await?;
        let backing = backing(ctx)?;
        let advanced = backing
            .commands
            .advance(&id, to.into(), expected(expected_revision)?, &origin(ctx))
            .await;
        let order = advanced.map_err(|refused| error::of_command(refused, ""))?;
        wrote(ctx, Kind::Order, &order.id, order.revision);
        Ok(OrderPayload::new(order, backing))
    }

    /// Possible until SHIPPED.
    #[graphql(requires_scopes = "orders:write", requires_scopes = "self")]
    async fn cancel_order(
        &self,
        ctx: &Context<'_>,
        id: ID,
        reason: Option<String>,
        expected_revision: Option<i32>,
    ) -> Result<OrderPayload, ApiError> {
        may_cancel(ctx, &id).await?;
        require_shown_of_order(ctx, &id).await?;
        let backing = backing(ctx)?;
        let cancelled = backing
            .commands
            .cancel(&id, reason, expected(expected_revision)?, &origin(ctx))
            .await;
        let order = cancelled.map_err(|refused| error::of_command(refused, ""))?;
        wrote(ctx, Kind::Order, &order.id, order.revision);
        Ok(OrderPayload::new(order, backing))
    }
}
