//! The customer entity as orders contributes to it: its orders, and what the replica holds.

use std::sync::Arc;

use async_graphql::{Enum, ID, Object, SimpleObject};
use tandem_kit::{
    graphql::{ApiError, Connection},
    values::Timestamp,
};

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

    async fn state(&self) -> Result<Option<Arc<ReplicaCustomer>>, ApiError> {
        match &self.known {
            Some(known) => Ok(Some(Arc::clone(known))),
            None => self.loaders.customer(&self.id).await,
        }
    }

    async fn replicated(&self) -> Result<Arc<ReplicaCustomer>, ApiError> {
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

    #[graphql(shareable)]
    async fn name(&self) -> Result<Name, ApiError> {
        Ok(self.replicated().await?.name.clone().into())
    }

    #[graphql(shareable)]
    async fn contact(&self) -> Result<Contact, ApiError> {
        Ok(self.replicated().await?.contact.clone().into())
    }

    #[graphql(shareable)]
    async fn addresses(&self) -> Result<Vec<Address>, ApiError> {
        let customer = self.replicated().await?;
        Ok(customer
            .addresses
            .iter()
            .cloned()
            .map(Address::from)
            .collect())
    }

    /// The customer's orders, in order of placing. `first` 1..100.
    async fn orders(
        &self,
        status: Option<OrderStatusValue>,
        #[graphql(default = 20)] first: i32,
        after: Option<String>,
    ) -> Result<Option<Connection<String, OrderNode>>, ApiError> {
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
    async fn replica(&self) -> Result<Option<ReplicaState>, ApiError> {
        let state = self.state().await?;
        Ok(state.map(|customer| ReplicaState {
            revision: customer.revision,
            changed_at: customer.changed_at,
            replicated_at: customer.replicated_at,
        }))
    }
}

/// How fresh the replica is.
#[derive(SimpleObject)]
pub(super) struct ReplicaState {
    /// Accounts' revision of the customer that orders holds.
    revision: i64,
    changed_at: Timestamp,
    replicated_at: Timestamp,
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
