//! The data of a customer that orders shows.

use async_graphql::{Enum, SimpleObject};

use crate::{domain, replica};

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
