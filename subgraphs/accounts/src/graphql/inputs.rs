//! The inputs of the mutations. They only carry texts to the domain, which checks the rules.

use std::fmt;

use async_graphql::{ID, InputObject};

use super::types::{AddressType, CreditCardType};
use crate::domain::{self, CardDraft};

/// All that makes a customer.
#[derive(InputObject, Debug)]
pub(crate) struct CreateCustomerInput {
    /// 1 to 64 of `A-Z a-z 0-9 _ -`. Without it the service assigns a number.
    pub id: Option<ID>,
    pub name: NameInput,
    pub contact: ContactInput,
    #[graphql(default)]
    pub addresses: Vec<AddressInput>,
    #[graphql(default)]
    pub credit_cards: Vec<CreditCardInput>,
    /// Same key, same caller, within a day: the first answer is given again and nothing is changed twice.
    pub idempotency_key: Option<String>,
}

/// The parts to change; what is not given stays as it is. A list is replaced whole.
#[derive(InputObject, Debug)]
pub(crate) struct UpdateCustomerInput {
    pub name: Option<NameInput>,
    pub contact: Option<ContactInput>,
    pub addresses: Option<Vec<AddressInput>>,
    pub credit_cards: Option<Vec<CreditCardInput>>,
    /// Same key, same caller, within a day: the first answer is given again and nothing is changed twice.
    pub idempotency_key: Option<String>,
}

impl UpdateCustomerInput {
    /// The given parts, under their names in the schema.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let parts = [
            ("name", self.name.is_some()),
            ("contact", self.contact.is_some()),
            ("addresses", self.addresses.is_some()),
            ("creditCards", self.credit_cards.is_some()),
        ];
        let given = parts.into_iter().filter(|(_, is_given)| *is_given);
        given.map(|(name, _)| name).collect()
    }
}

#[derive(InputObject, Debug)]
pub(crate) struct NameInput {
    pub title: Option<String>,
    pub first_name: String,
    pub middle_name: Option<String>,
    pub last_name: String,
    pub suffix: Option<String>,
}

#[derive(InputObject, Debug)]
pub(crate) struct ContactInput {
    pub primary_phone: String,
    pub secondary_phone: Option<String>,
    pub email: String,
}

#[derive(InputObject, Debug)]
pub(crate) struct AddressInput {
    #[graphql(name = "type")]
    pub kind: AddressType,
    pub description: Option<String>,
    pub address1: String,
    pub address2: Option<String>,
    pub city: String,
    pub state: String,
    pub postal_code: String,
}

#[derive(InputObject)]
pub(crate) struct CreditCardInput {
    #[graphql(name = "type")]
    pub kind: CreditCardType,
    pub description: Option<String>,
    /// 12 to 19 digits, with spaces or dashes between.
    #[graphql(secret)]
    pub number: String,
    /// M/YY, MM/YY or MM/YYYY.
    pub expiration: String,
    pub name_on_card: String,
}

impl fmt::Debug for CreditCardInput {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CreditCardInput")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl From<NameInput> for domain::Name {
    fn from(given: NameInput) -> Self {
        Self {
            title: given.title,
            first_name: given.first_name,
            middle_name: given.middle_name,
            last_name: given.last_name,
            suffix: given.suffix,
        }
    }
}

impl From<ContactInput> for domain::Contact {
    fn from(given: ContactInput) -> Self {
        Self {
            primary_phone: given.primary_phone,
            secondary_phone: given.secondary_phone,
            email: given.email,
        }
    }
}

impl From<AddressInput> for domain::Address {
    fn from(given: AddressInput) -> Self {
        Self {
            kind: given.kind.into(),
            description: given.description,
            address1: given.address1,
            address2: given.address2,
            city: given.city,
            state: given.state,
            postal_code: given.postal_code,
        }
    }
}

impl From<CreditCardInput> for CardDraft {
    fn from(given: CreditCardInput) -> Self {
        Self {
            kind: given.kind.into(),
            description: given.description,
            number: given.number,
            expiration: given.expiration,
            name_on_card: given.name_on_card,
        }
    }
}

/// Converts each entry to its domain type.
pub(super) fn each<T, U: From<T>>(given: Vec<T>) -> Vec<U> {
    given.into_iter().map(U::from).collect()
}
