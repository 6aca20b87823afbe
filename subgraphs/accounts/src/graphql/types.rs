//! The types of the answers. Fields of `Customer` that only accounts has are nullable, so that the fields of orders can
//! be answered while accounts is down.

use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject};
use tandem_event_path::store::{ChangeRecord, ChangesRequest};
use tandem_model::aggregate::Aggregate;
use tandem_service::graphql::{ApiError, Connection, DateTime, PageRequest, beside, connection};

use super::{
    failure,
    loaders::{ChangesOf, Loaders},
};
use crate::domain;

/// A customer, as the system of record has it.
#[derive(Clone, Debug)]
pub(crate) struct Customer(pub(super) domain::Customer);

/// A customer, as the system of record has it.
#[Object]
impl Customer {
    async fn id(&self) -> ID {
        self.0.customer_id().as_str().into()
    }

    #[graphql(shareable)]
    async fn name(&self) -> Name {
        self.0.name().clone().into()
    }

    #[graphql(shareable)]
    async fn contact(&self) -> Contact {
        self.0.contact().clone().into()
    }

    #[graphql(shareable)]
    async fn addresses(&self) -> Vec<Address> {
        self.0.addresses().iter().cloned().map(Into::into).collect()
    }

    /// Never the number: its last four digits only.
    async fn credit_cards(&self) -> Option<Vec<CreditCard>> {
        let cards = self.0.credit_cards().iter().cloned();
        Some(cards.map(Into::into).collect())
    }

    /// 1 at creation, +1 with every change.
    async fn revision(&self) -> Option<i64> {
        Some(self.0.revision())
    }

    async fn created_at(&self) -> Option<DateTime> {
        Some(self.0.created_at().into())
    }

    async fn updated_at(&self) -> Option<DateTime> {
        Some(self.0.updated_at().into())
    }

    /// The audit trail, oldest first: every state change ever made.
    async fn changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(default = 20, desc = "1 to 100.")] first: i32,
        after: Option<String>,
    ) -> Result<Option<Connection<i64, CustomerChange>>> {
        let page = PageRequest::<i64>::new(first, after.as_deref())?;
        let key = ChangesOf {
            page: ChangesRequest {
                subject: self.0.id().to_owned(),
                after_revision: page.after.unwrap_or_default(),
                limit: page.fetch_limit(),
            },
            revision: self.0.revision(),
        };
        let found = ctx.data::<Loaders>()?.changes(key).await?;
        if found.is_partial {
            beside(ctx, failure::filling());
        }
        let changes = found
            .records
            .iter()
            .map(|record| Ok((record.revision, CustomerChange::of(record)?)))
            .collect::<Result<Vec<_>, ApiError>>()?;
        Ok(Some(connection(&page, changes)))
    }
}

#[derive(SimpleObject, Debug)]
#[graphql(shareable)]
pub(crate) struct Name {
    title: Option<String>,
    first_name: String,
    middle_name: Option<String>,
    last_name: String,
    suffix: Option<String>,
}

#[derive(SimpleObject, Debug)]
#[graphql(shareable)]
pub(crate) struct Contact {
    primary_phone: String,
    secondary_phone: Option<String>,
    email: String,
}

#[derive(SimpleObject, Debug)]
#[graphql(shareable)]
pub(crate) struct Address {
    #[graphql(name = "type")]
    kind: AddressType,
    description: Option<String>,
    address1: String,
    address2: Option<String>,
    city: String,
    state: String,
    postal_code: String,
}

#[derive(SimpleObject, Debug)]
pub(crate) struct CreditCard {
    #[graphql(name = "type")]
    kind: CreditCardType,
    description: Option<String>,
    /// The number's last four digits.
    last4: String,
    expiration: String,
    name_on_card: String,
}

#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(remote = "domain::AddressType")]
pub(crate) enum AddressType {
    Billing,
    Shipping,
    ShippingAlternate,
}

#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(remote = "domain::CreditCardType")]
pub(crate) enum CreditCardType {
    Primary,
    Alternate,
}

#[derive(Enum, Clone, Copy, Debug, PartialEq, Eq)]
#[graphql(remote = "domain::ChangeType")]
pub(crate) enum CustomerChangeType {
    Created,
    Updated,
    Erased,
}

/// One state change, as the log tells of it.
#[derive(SimpleObject, Debug)]
pub(crate) struct CustomerChange {
    /// CloudEvents id of the event that carried this change.
    event_id: ID,
    revision: i64,
    #[graphql(name = "type")]
    kind: CustomerChangeType,
    changed_at: DateTime,
    /// Who asked: the token's subject, or `anonymous`, or `legacy-rest`.
    changed_by: String,
    /// Top-level parts that differ from the revision before: name, contact, addresses, creditCards.
    changed_fields: Vec<String>,
}

impl CustomerChange {
    fn of(record: &ChangeRecord) -> Result<Self, ApiError> {
        let kind = [
            domain::ChangeType::Created,
            domain::ChangeType::Updated,
            domain::ChangeType::Erased,
        ]
        .into_iter()
        .find(|kind| kind.as_str() == record.kind)
        .ok_or_else(|| {
            ApiError::internal(format!(
                "the audit trail of {} holds the unknown change type {}",
                record.subject, record.kind
            ))
        })?;
        Ok(Self {
            event_id: record.event_id.clone().into(),
            revision: record.revision,
            kind: kind.into(),
            changed_at: record.changed_at.into(),
            changed_by: record.changed_by.clone(),
            changed_fields: record.changed_fields.clone(),
        })
    }
}

/// Who was erased, and when.
#[derive(SimpleObject, Debug)]
pub(crate) struct EraseCustomerPayload {
    pub(super) id: ID,
    pub(super) erased_at: DateTime,
}

/// The customer after the change.
#[derive(SimpleObject, Debug)]
pub(crate) struct CustomerPayload {
    pub(super) customer: Customer,
}

impl From<domain::Name> for Name {
    fn from(name: domain::Name) -> Self {
        Self {
            title: name.title,
            first_name: name.first_name,
            middle_name: name.middle_name,
            last_name: name.last_name,
            suffix: name.suffix,
        }
    }
}

impl From<domain::Contact> for Contact {
    fn from(contact: domain::Contact) -> Self {
        Self {
            primary_phone: contact.primary_phone,
            secondary_phone: contact.secondary_phone,
            email: contact.email,
        }
    }
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

impl From<domain::CreditCard> for CreditCard {
    fn from(card: domain::CreditCard) -> Self {
        Self {
            kind: card.kind.into(),
            description: card.description,
            last4: card.last4,
            expiration: card.expiration,
            name_on_card: card.name_on_card,
        }
    }
}
