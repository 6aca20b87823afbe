//! The customer aggregate: its state, the commands that change it, and what each changed.

mod change;
mod commands;
mod error;

use serde::{Deserialize, Serialize};
use tandem_model::aggregate::Aggregate;
use tandem_model::values::Timestamp;

use super::{Address, Contact, CreditCard, CustomerId, Name};

pub use change::{Asked, Change, ChangeType, Part};
pub use commands::{CreateCustomer, UpdateCustomer};
pub use error::CustomerError;

/// A customer after its newest change. It changes only through its commands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Customer {
    id: CustomerId,
    name: Name,
    contact: Contact,
    addresses: Vec<Address>,
    credit_cards: Vec<CreditCard>,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// The key that the person's data is sealed with in events, wrapped; none before the first sealed event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_key: Option<String>,
    /// Nothing of the person is left: only that there was one, so that the id is never given to another.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// All that is personal of a customer. In events it is sealed as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// What it is called.
    pub name: Name,
    /// How it is reached.
    pub contact: Contact,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// Its cards, numbers sealed.
    #[serde(default)]
    pub credit_cards: Vec<CreditCard>,
}

impl Customer {
    /// Its identity.
    #[must_use]
    pub fn customer_id(&self) -> &CustomerId {
        &self.id
    }

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// How it is reached.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// Its addresses, in the order given.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Its cards, in the order given, numbers sealed.
    #[must_use]
    pub fn credit_cards(&self) -> &[CreditCard] {
        &self.credit_cards
    }

    /// All that is personal of it.
    #[must_use]
    pub fn person(&self) -> Person {
        Person {
            name: self.name.clone(),
            contact: self.contact.clone(),
            addresses: self.addresses.clone(),
            credit_cards: self.credit_cards.clone(),
        }
    }

    /// Whether only a stub is left of it.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.erased
    }

    /// The key that its data is sealed with in events, wrapped.
    #[must_use]
    pub fn data_key(&self) -> Option<&str> {
        self.data_key.as_deref()
    }

    /// The same customer with this wrapped key.
    #[must_use]
    pub fn with_data_key(self, wrapped: String) -> Self {
        Self {
            data_key: Some(wrapped),
            ..self
        }
    }

    /// The same customer with what the services' key has sealed sealed anew: `data_key` answers the wrapped key anew and `number` a card's
    /// number, `None` for what may stay. Answers the customer if anything is new, and whether a card is.
    ///
    /// # Errors
    /// What these fail with.
    pub fn resealed<E>(
        &self,
        data_key: impl FnOnce(&str) -> Result<Option<String>, E>,
        number: impl Fn(&CreditCard) -> Result<Option<String>, E>,
    ) -> Result<Option<(Self, bool)>, E> {
        let wrapped = self
            .data_key
            .as_deref()
            .map(data_key)
            .transpose()?
            .flatten();
        let mut resealed = self.clone();
        let mut has_card = false;
        for card in &mut resealed.credit_cards {
            if let Some(sealed) = number(card)? {
                card.sealed_number = sealed;
                has_card = true;
            }
        }
        let is_new = has_card || wrapped.is_some();
        resealed.data_key = wrapped.or(resealed.data_key);
        Ok(is_new.then_some((resealed, has_card)))
    }

    /// When its first revision was made.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// When its newest revision was made.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// A customer as an event describes it: for a rebuild from the log. Rules are not checked again: they held when
    /// the event was made, and may have become stricter since. Without the person it is one who was erased.
    pub(super) fn restore(
        id: CustomerId,
        revision: i64,
        (created_at, updated_at): (Timestamp, Timestamp),
        person: Option<Person>,
        data_key: Option<String>,
    ) -> Self {
        let erased = person.is_none();
        let Person {
            name,
            contact,
            addresses,
            credit_cards,
        } = person.unwrap_or_default();
        Self {
            id,
            name,
            contact,
            addresses,
            credit_cards,
            data_key: data_key.filter(|_| !erased),
            erased,
            revision,
            created_at,
            updated_at,
        }
    }
}

impl Aggregate for Customer {
    const NAME: &'static str = "customer";
    const COLLECTION: &'static str = "customer.accounts";
    const INDEXES: &'static [&'static [&'static str]] = &[];

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn field(&self, _name: &str) -> Option<String> {
        None
    }
}
