//! The customer aggregate: its state, the commands that change it, and the changes that they make.

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

/// A customer after its newest change. Only commands change it.
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
    /// The wrapped key that seals the personal data in events. `None` before the first sealed event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_key: Option<String>,
    /// Whether the customer has been erased. No personal data is left then. The stub remains so that the id is never
    /// used again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// All personal data of a customer. An event seals it as one piece.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Person {
    /// The customer's name.
    pub name: Name,
    /// Phone numbers and e-mail address.
    pub contact: Contact,
    /// The customer's addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// The customer's cards, with sealed numbers.
    #[serde(default)]
    pub credit_cards: Vec<CreditCard>,
}

impl Customer {
    /// The customer's id.
    #[must_use]
    pub fn customer_id(&self) -> &CustomerId {
        &self.id
    }

    /// The customer's name.
    #[must_use]
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Phone numbers and e-mail address.
    #[must_use]
    pub fn contact(&self) -> &Contact {
        &self.contact
    }

    /// The addresses, in the given order.
    #[must_use]
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The cards, in the given order, with sealed numbers.
    #[must_use]
    pub fn credit_cards(&self) -> &[CreditCard] {
        &self.credit_cards
    }

    /// All personal data of the customer.
    #[must_use]
    pub fn person(&self) -> Person {
        Person {
            name: self.name.clone(),
            contact: self.contact.clone(),
            addresses: self.addresses.clone(),
            credit_cards: self.credit_cards.clone(),
        }
    }

    /// Whether the customer has been erased and only a stub is left.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.erased
    }

    /// The wrapped key that seals the personal data in events.
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

    /// The same customer, re-sealed with the newest sealing key. `data_key` returns the re-wrapped key, and `number`
    /// returns the re-sealed number of a card. Each returns `None` for what may stay. The result holds the customer if
    /// anything was re-sealed, and whether a card was.
    ///
    /// # Errors
    /// The errors of `data_key` and `number`.
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

    /// The time of the first revision.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The time of the newest revision.
    #[must_use]
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// Restores a customer from what an event describes, for a rebuild from the log. The rules are not checked again:
    /// they held when the event was made, and may have become stricter since. A customer without a person has been
    /// erased.
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
