//! The queries of orders.

use std::sync::Arc;

use async_graphql::{Context, ID, Object};
use tandem_authentication::Scope;
use tandem_service::graphql::{
    ApiError, Connection, TextKey, access, beside_entity, refuse_access, require_or_own,
};

use super::{
    Backing, Loaders,
    entities::{CustomerNode, OrderNode, Orders, orders_page},
    error,
    order::OrderStatusValue,
};
use crate::{
    domain::{Order, OrderError},
    replica::{LONGEST_WAIT, Waited, event::is_customer_id},
};

/// The root type of queries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query;

pub(super) fn backing<'a>(ctx: &Context<'a>) -> Result<&'a Backing, ApiError> {
    ctx.data_opt::<Backing>()
        .ok_or_else(|| ApiError::internal("the schema was built without its stores"))
}

fn loaders(ctx: &Context<'_>) -> Result<Loaders, ApiError> {
    match ctx.data_opt::<Loaders>() {
        Some(loaders) => Ok(loaders.clone()),
        None => Ok(backing(ctx)?.loaders()),
    }
}

#[Object]
impl Query {
    #[graphql(requires_scopes = "orders:read", requires_scopes = "self")]
    async fn order(&self, ctx: &Context<'_>, id: ID) -> Result<Option<OrderNode>, ApiError> {
        find_order(ctx, &id).await
    }

    /// Relay connection, in order of placing. `first` 1..100. With the scope `self` alone, of the caller's own orders.
    #[graphql(requires_scopes = "orders:read", requires_scopes = "self")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        customer_id: Option<ID>,
        status: Option<OrderStatusValue>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<TextKey<Orders>, OrderNode>, ApiError> {
        let customer_id = whose_orders(ctx, customer_id.map(|id| id.0))?;
        let loaders = loaders(ctx)?;
        orders_page(ctx, &loaders, customer_id, status, first, after.as_deref()).await
    }

    /// The customer as orders knows it, from its own replica: answers while accounts is down.
    /// With `minRevision` it waits (at most 2 s) until the replica holds that revision, so that a
    /// client reads its own write; still behind after that: code REPLICA_BEHIND. null for one who was erased.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn ordering_customer(
        &self,
        ctx: &Context<'_>,
        id: ID,
        min_revision: Option<i32>,
    ) -> Result<Option<CustomerNode>, ApiError> {
        require_or_own(ctx, Scope::CustomersRead, &id)?;
        let loaders = loaders(ctx)?;
        if min_revision.is_some_and(|revision| revision < 1) {
            return Err(ApiError::bad_user_input(
                "minRevision",
                "`minRevision` is less than 1; the first revision of a customer is 1",
            ));
        }
        if !is_customer_id(&id) {
            return Ok(None);
        }
        let Some(revision) = min_revision.map(i64::from) else {
            let found = loaders.customer(&id).await?;
            return Ok(found
                .filter(|customer| !customer.erased)
                .map(|customer| CustomerNode::known(customer, loaders)));
        };
        let backing = backing(ctx)?;
        let is_filling = !backing.commands.gate().is_open();
        let waited = backing
            .replica
            .wait_for_revision(&id, revision, LONGEST_WAIT)
            .await
            .map_err(|failed| error::of_store(&failed))?;
        match waited {
            Waited::Arrived(customer) if customer.erased => Ok(None),
            Waited::Arrived(customer) => {
                Ok(Some(CustomerNode::known(Arc::from(customer), loaders)))
            }
            Waited::Behind(None) if is_filling => Err(error::filling()),
            Waited::Behind(held) => Err(error::replica_behind(
                revision.unsigned_abs(),
                held.map(i64::unsigned_abs),
            )),
        }
    }

    #[graphql(entity)]
    async fn customer_entity(
        &self,
        ctx: &Context<'_>,
        id: ID,
    ) -> Result<Option<CustomerNode>, ApiError> {
        Ok(Some(CustomerNode::reference(id.0, loaders(ctx)?)))
    }

    #[graphql(entity)]
    async fn order_entity(&self, ctx: &Context<'_>, id: ID) -> Result<Option<OrderNode>, ApiError> {
        match find_order(ctx, &id).await {
            Err(error) if error == error::filling() => {
                beside_entity(ctx, "Order", &id, error);
                Ok(None)
            }
            found => found,
        }
    }
}

/// The customer whose orders a list or a subscription shows. `None` if the token may read all orders and no customer
/// was requested. A token that may read only its own orders gets the caller's own.
pub(super) fn whose_orders(
    ctx: &Context<'_>,
    asked_for: Option<String>,
) -> Result<Option<String>, ApiError> {
    let access = access(ctx);
    let own = access
        .narrowed_to(Scope::OrdersRead)
        .map_err(refuse_access)?;
    match (own, asked_for) {
        (None, asked_for) => Ok(asked_for),
        (Some(own), None) => Ok(Some(own.to_owned())),
        (Some(_), Some(asked_for)) => access
            .require_or_own(Scope::OrdersRead, &asked_for)
            .map(|()| Some(asked_for))
            .map_err(refuse_access),
    }
}

/// An order, if it exists. It is an error if the caller may not see it.
async fn find_order(ctx: &Context<'_>, id: &str) -> Result<Option<OrderNode>, ApiError> {
    let access = access(ctx);
    access
        .narrowed_to(Scope::OrdersRead)
        .map_err(refuse_access)?;
    if !Order::is_id(id) {
        return Ok(None);
    }
    let loaders = loaders(ctx)?;
    let found = loaders.order(id).await?;
    if let Some(order) = &found {
        access
            .require_or_own(Scope::OrdersRead, &order.customer_id)
            .map_err(refuse_access)?;
    }
    Ok(found.map(|order| OrderNode::new(order, loaders)))
}

/// The customer of an order. It never changes, so a decision that depends on it stays true after a change of the order.
///
/// # Errors
/// NOT_FOUND if there is no such order.
pub(super) async fn customer_of_order(ctx: &Context<'_>, id: &str) -> Result<String, ApiError> {
    let found = if Order::is_id(id) {
        loaders(ctx)?.order(id).await?
    } else {
        None
    };
    let unknown = || OrderError::NotFound { id: id.to_owned() };
    found
        .map(|order| order.customer_id.clone())
        .ok_or_else(|| error::of_command(unknown().into(), ""))
}
