//! The customer entity as orders contributes to it: its orders, and what the replica holds.

use std::sync::Arc;

use async_graphql::{Context, Enum, ID, Object, SimpleObject};
use tandem_authentication::Scope;
use tandem_service::graphql::{ApiError, Connection, DateTime, require_or_own};

use super::{
    Loaders,
    order::{OrderNode, OrderStatusValue, orders_page},
};
use crate::{
    domain,
    replica::{self, ReplicaCustomer},
};

/// A customer who may order.
///
/// Orders answers for an id that it does not know yet too, because accounts may be ahead: such a customer has no orders
/// and no replica; the parts that cannot be null are then an error.
pub(super) struct CustomerNode {
    id: String,
    /// What is known already.
    known: Option<Arc<ReplicaCustomer>>,
    loaders: Loaders,
}

impl CustomerNode {
    /// A reference, to be looked up when more than the id is asked for.
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

    /// The replica's state, for those who may see this customer.
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
    ) -> Result<Option<Connection<String, OrderNode>>, ApiError> {
        self.permit(ctx, Scope::OrdersRead)?;
        orders_page(
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

#[derive(SimpleObject)]
#[graphql(shareable)]
pub(super) struct Name {
    title: Option<String>,
    first_name: String,
    middle_name: Option<String>,
    last_name: String,
    suffix: Option<String>,
}

impl From<replica::Name> for Name {
    fn from(name: replica::Name) -> Self {
        Self {
            title: name.title,
            first_name: name.first_name,
            middle_name: name.middle_name,
            last_name: name.last_name,
            suffix: name.suffix,
        }
    }
}

#[derive(SimpleObject)]
#[graphql(shareable)]
pub(super) struct Contact {
    primary_phone: String,
    secondary_phone: Option<String>,
    email: String,
}

impl From<replica::Contact> for Contact {
    fn from(contact: replica::Contact) -> Self {
        Self {
            primary_phone: contact.primary_phone,
            secondary_phone: contact.secondary_phone,
            email: contact.email,
        }
    }
}

#[derive(SimpleObject)]
#[graphql(shareable)]
pub(super) struct Address {
    #[graphql(name = "type")]
    kind: AddressTypeValue,
    description: Option<String>,
    address1: String,
    address2: Option<String>,
    city: String,
    state: String,
    postal_code: String,
}

impl From<domain::Address> for Address {
    fn from(address: domain::Address) -> Self {
        Self {
            kind: address.kind.into(),
            description: address.description,
            address1: address.address1,
            address2: address.address2,
            city: address.city,
            state: address.state,
            postal_code: address.postal_code,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(name = "AddressType", remote = "domain::AddressType")]
pub(super) enum AddressTypeValue {
    Billing,
    Shipping,
    ShippingAlternate,
}
