//! The entities of the graph, which refer to each other: the order, and the part of the customer that orders
//! contributes (its orders and the state in the replica). Also pages of orders.

use std::sync::Arc;

use async_graphql::{Context, ID, Object, SimpleObject};
use tandem_authentication::Scope;
use tandem_event_path::store::ChangesRequest;
use tandem_service::graphql::{
    ApiError, Connection, DateTime, Decimal, PageRequest, TextKey, TextList, beside, connection,
    require_or_own,
};

use super::{
    Loaders,
    customer::{Address, Contact, Name},
    error,
    loaders::OrdersOf,
    order::{OrderChange, OrderItem, OrderStatusValue},
};
use crate::{
    domain::{self, Order},
    replica::{ReplicaCustomer, event::is_customer_id},
};

/// An order, with the loaders for its related data.
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
        ctx: &Context<'_>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Connection<i64, OrderChange>, ApiError> {
        let page = PageRequest::<i64>::new(first, after.as_deref())?;
        let request = ChangesRequest {
            subject: self.order.id.clone(),
            after_revision: page.after.unwrap_or(0),
            limit: page.fetch_limit(),
        };
        let found = self.loaders.changes(request).await?;
        if found.is_partial {
            beside(ctx, error::filling());
        }
        let nodes = found
            .items
            .iter()
            .map(|record| Ok((record.revision, OrderChange::try_from(record)?)))
            .collect::<Result<Vec<_>, ApiError>>()?;
        Ok(connection(&page, nodes))
    }
}

/// Lists of orders. All of them are ordered by id.
pub(super) struct Orders;

impl TextList for Orders {
    const NAME: &'static str = "orders";

    fn may_have(id: &str) -> bool {
        Order::is_id(id)
    }
}

/// A page of orders, ordered by id, which is the order of placing.
pub(super) async fn orders_page(
    ctx: &Context<'_>,
    loaders: &Loaders,
    customer_id: Option<String>,
    status: Option<OrderStatusValue>,
    first: i32,
    after: Option<&str>,
) -> Result<Connection<TextKey<Orders>, OrderNode>, ApiError> {
    let page = PageRequest::<TextKey<Orders>>::new(first, after)?;
    if customer_id.as_deref().is_some_and(|id| !is_customer_id(id)) {
        return Ok(connection(&page, Vec::new()));
    }
    let list = OrdersOf {
        customer_id,
        status: status.map(domain::OrderStatus::from),
        after: page.after.as_ref().map(|it| it.id.clone()),
        limit: page.fetch_limit(),
    };
    let found = loaders.orders_of(list).await?;
    if found.is_partial {
        beside(ctx, error::filling());
    }
    let nodes = found
        .items
        .iter()
        .map(|order| {
            let node = OrderNode::new(Arc::clone(order), loaders.clone());
            (TextKey::new(order.id.as_str()), node)
        })
        .collect();
    Ok(connection(&page, nodes))
}

/// A customer who may place orders.
///
/// Orders also answers for an id that it does not know yet, because accounts may be ahead of the replica. Such a
/// customer has no orders and no replica state, and its fields that cannot be null are errors.
pub(super) struct CustomerNode {
    id: String,
    /// The customer's state, if it is known already.
    known: Option<Arc<ReplicaCustomer>>,
    loaders: Loaders,
}

impl CustomerNode {
    /// A reference to a customer. The customer is looked up when more than the id is selected.
    pub(super) fn reference(id: String, loaders: Loaders) -> Self {
        Self {
            id,
            known: None,
            loaders,
        }
    }

    /// A customer whose state is known.
    pub(super) fn known(customer: Arc<ReplicaCustomer>, loaders: Loaders) -> Self {
        Self {
            id: customer.id.clone(),
            known: Some(customer),
            loaders,
        }
    }

    fn permit(&self, ctx: &Context<'_>, scope: Scope) -> Result<(), ApiError> {
        require_or_own(ctx, scope, &self.id)
    }

    async fn state(&self) -> Result<Option<Arc<ReplicaCustomer>>, ApiError> {
        match &self.known {
            Some(known) => Ok(Some(Arc::clone(known))),
            None => self.loaders.customer(&self.id).await,
        }
    }

    /// The replica's state of the customer, for callers who may see this customer.
    async fn replicated(&self, ctx: &Context<'_>) -> Result<Arc<ReplicaCustomer>, ApiError> {
        self.permit(ctx, Scope::CustomersRead)?;
        self.state().await?.ok_or_else(|| {
            ApiError::unavailable(format!(
                "customer `{}` has not reached orders yet; try again in a moment",
                self.id
            ))
        })
    }
}

/// A customer, as orders knows it from its replica. Of one who was erased all texts are empty.
#[Object(name = "Customer")]
impl CustomerNode {
    async fn id(&self) -> ID {
        ID(self.id.clone())
    }

    #[graphql(
        shareable,
        requires_scopes = "customers:read",
        requires_scopes = "self"
    )]
    async fn name(&self, ctx: &Context<'_>) -> Result<Name, ApiError> {
        Ok(self.replicated(ctx).await?.name.clone().into())
    }

    #[graphql(
        shareable,
        requires_scopes = "customers:read",
        requires_scopes = "self"
    )]
    async fn contact(&self, ctx: &Context<'_>) -> Result<Contact, ApiError> {
        Ok(self.replicated(ctx).await?.contact.clone().into())
    }

    #[graphql(
        shareable,
        requires_scopes = "customers:read",
        requires_scopes = "self"
    )]
    async fn addresses(&self, ctx: &Context<'_>) -> Result<Vec<Address>, ApiError> {
        let customer = self.replicated(ctx).await?;
        Ok(customer
            .addresses
            .iter()
            .cloned()
            .map(Address::from)
            .collect())
    }

    /// The customer's orders, in order of placing. `first` 1..100.
    #[graphql(requires_scopes = "orders:read", requires_scopes = "self")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        status: Option<OrderStatusValue>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Option<Connection<TextKey<Orders>, OrderNode>>, ApiError> {
        self.permit(ctx, Scope::OrdersRead)?;
        orders_page(
            ctx,
            &self.loaders,
            Some(self.id.clone()),
            status,
            first,
            after.as_deref(),
        )
        .await
        .map(Some)
    }

    /// null when the customer has not reached orders yet.
    #[graphql(requires_scopes = "customers:read", requires_scopes = "self")]
    async fn replica(&self, ctx: &Context<'_>) -> Result<Option<ReplicaState>, ApiError> {
        self.permit(ctx, Scope::CustomersRead)?;
        let state = self.state().await?;
        Ok(state.map(|customer| ReplicaState {
            revision: customer.revision,
            changed_at: customer.changed_at.into(),
            replicated_at: customer.replicated_at.into(),
        }))
    }
}

/// How fresh the replica is.
#[derive(SimpleObject)]
pub(super) struct ReplicaState {
    /// Accounts' revision of the customer that orders holds.
    revision: i64,
    changed_at: DateTime,
    replicated_at: DateTime,
}
