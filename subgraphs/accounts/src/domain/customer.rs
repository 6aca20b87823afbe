//! The customer aggregate: its state, the commands that change it, and what each changed.

use serde::{Deserialize, Serialize};
use tandem_model::aggregate::Aggregate;
use tandem_model::values::Timestamp;

use super::{
    Address, CardDraft, CardVault, Contact, CreditCard, CustomerId, EmailForm, Name, VaultError,
    Violation, card::CheckedCard,
};

/// A customer after its newest change. It changes only through the commands below.
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

/// All that makes a customer, given at once.
#[derive(Clone, Debug)]
pub struct CreateCustomer {
    /// Its identity.
    pub id: CustomerId,
    /// What it is called.
    pub name: Name,
    /// How it is reached.
    pub contact: Contact,
    /// At most [`MAX_ADDRESSES`](super::MAX_ADDRESSES).
    pub addresses: Vec<Address>,
    /// At most [`MAX_CARDS`](super::MAX_CARDS).
    pub credit_cards: Vec<CardDraft>,
}

/// The parts to change; `None` leaves a part as it is. A list is replaced whole.
#[derive(Clone, Debug, Default)]
pub struct UpdateCustomer {
    /// What it is called.
    pub name: Option<Name>,
    /// How it is reached.
    pub contact: Option<Contact>,
    /// At most [`MAX_ADDRESSES`](super::MAX_ADDRESSES).
    pub addresses: Option<Vec<Address>>,
    /// At most [`MAX_CARDS`](super::MAX_CARDS).
    pub credit_cards: Option<Vec<CardDraft>>,
}

/// Who asks for a change, when, and in which trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The token's subject, or `anonymous`, or `legacy-rest`.
    pub by: String,
    /// Now.
    pub at: Timestamp,
    /// The W3C `traceparent` of the request, if there is one.
    pub traceparent: Option<String>,
}

/// A change that a command makes: the new state and what is to be told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The state after the change.
    pub customer: Customer,
    /// Whether it made the customer or changed it.
    pub kind: ChangeType,
    /// The parts that differ from the revision before.
    pub parts: Vec<Part>,
    /// Who asked for it. The time is the customer's `updated_at`.
    pub asked: Asked,
}

/// What a change did to the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeType {
    /// The first revision.
    Created,
    /// Any later one.
    Updated,
    /// The last one: the person's data is gone.
    Erased,
}

impl ChangeType {
    /// Its name as it is written in events and in the audit trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Erased => "ERASED",
        }
    }
}

/// A top-level part of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What it is called.
    Name,
    /// How it is reached.
    Contact,
    /// Its addresses.
    Addresses,
    /// Its cards.
    CreditCards,
}

impl Part {
    /// Its name in the API and in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Contact => "contact",
            Self::Addresses => "addresses",
            Self::CreditCards => "creditCards",
        }
    }
}

/// Why a command is refused. The state is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomerError {
    /// A field does not keep its rule.
    #[error(transparent)]
    Invalid(#[from] Violation),
    /// The id is in use.
    #[error("customer {0} exists already: choose another id, or update that customer")]
    AlreadyExists(CustomerId),
    /// The id was a customer's who has been erased.
    #[error("customer {0} was erased, and the id is not used again: choose another id")]
    Erased(CustomerId),
    /// The request was carried out before, and what it made has been erased.
    #[error(
        "this request was carried out before for customer {0}, who was erased since; it is not carried out again"
    )]
    ErasedSince(CustomerId),
    /// There is no such customer.
    #[error("there is no customer {0}")]
    NotFound(CustomerId),
    /// Somebody else was first.
    #[error(
        "customer {id} is at revision {actual}, not {expected}: read it again and repeat the change"
    )]
    RevisionConflict {
        /// Whose.
        id: CustomerId,
        /// The revision that the caller expects.
        expected: i64,
        /// The revision there is.
        actual: i64,
    },
    /// A card number cannot be sealed: the service's fault.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The event cannot be written: the service's fault.
    #[error("the change event cannot be written: {0}")]
    NotEncoded(String),
}

impl Customer {
    /// Makes a customer. E-mail addresses must have the form of one.
    ///
    /// # Errors
    /// When there is one with that id, or a field does not keep its rule.
    pub fn create(
        current: Option<&Self>,
        command: CreateCustomer,
        asked: Asked,
        vault: &dyn CardVault,
    ) -> Result<Change, CustomerError> {
        match current {
            Some(stub) if stub.erased => return Err(CustomerError::Erased(command.id)),
            Some(_) => return Err(CustomerError::AlreadyExists(command.id)),
            None => {}
        }
        Self::first_revision(command, EmailForm::Checked, asked, vault)
    }

    /// Changes the given parts of a customer and leaves the rest. `None` when nothing differs: then there is no new
    /// revision and nothing to tell. E-mail addresses must have the form of one.
    ///
    /// # Errors
    /// When there is no such customer, its revision is not the expected one, or a field does not keep its rule.
    pub fn update(
        current: Option<&Self>,
        id: &CustomerId,
        command: UpdateCustomer,
        expected_revision: Option<i64>,
        asked: Asked,
        vault: &dyn CardVault,
    ) -> Result<Option<Change>, CustomerError> {
        let Some(current) = current.filter(|current| !current.erased) else {
            return Err(CustomerError::NotFound(id.clone()));
        };
        if let Some(expected) = expected_revision
            && expected != current.revision
        {
            return Err(CustomerError::RevisionConflict {
                id: id.clone(),
                expected,
                actual: current.revision,
            });
        }
        current.next_revision(command, EmailForm::Checked, asked, vault)
    }

    /// Makes the customer, or makes the one there is equal to what is given. `None` when it is already. E-mail
    /// addresses may be any text: this is the documented REST route.
    ///
    /// # Errors
    /// When a field does not keep its rule.
    pub fn replace_or_create(
        current: Option<&Self>,
        command: CreateCustomer,
        asked: Asked,
        vault: &dyn CardVault,
    ) -> Result<Option<Change>, CustomerError> {
        let Some(current) = current else {
            return Self::first_revision(command, EmailForm::Any, asked, vault).map(Some);
        };
        if current.erased {
            return Err(CustomerError::Erased(command.id));
        }
        let parts = UpdateCustomer {
            name: Some(command.name),
            contact: Some(command.contact),
            addresses: Some(command.addresses),
            credit_cards: Some(command.credit_cards),
        };
        current.next_revision(parts, EmailForm::Any, asked, vault)
    }

    /// Erases a customer: what is left is a stub of id, revision and times. `None` when that was done before.
    ///
    /// # Errors
    /// When there is no such customer.
    pub fn erase(
        current: Option<&Self>,
        id: &CustomerId,
        asked: Asked,
    ) -> Result<Option<Change>, CustomerError> {
        let Some(current) = current else {
            return Err(CustomerError::NotFound(id.clone()));
        };
        if current.erased {
            return Ok(None);
        }
        let Person {
            name,
            contact,
            addresses,
            credit_cards,
        } = Person::default();
        let customer = Self {
            id: current.id.clone(),
            name,
            contact,
            addresses,
            credit_cards,
            revision: current.revision + 1,
            created_at: current.created_at,
            updated_at: asked.at.max(current.updated_at),
            data_key: None,
            erased: true,
        };
        Ok(Some(Change {
            customer,
            kind: ChangeType::Erased,
            parts: vec![
                Part::Name,
                Part::Contact,
                Part::Addresses,
                Part::CreditCards,
            ],
            asked,
        }))
    }

    fn first_revision(
        command: CreateCustomer,
        form: EmailForm,
        asked: Asked,
        vault: &dyn CardVault,
    ) -> Result<Change, CustomerError> {
        command.name.check()?;
        command.contact.check(form)?;
        Address::check_all(&command.addresses)?;
        let cards = CardDraft::check_all(command.credit_cards)?;
        let mut parts = vec![Part::Name, Part::Contact];
        if !command.addresses.is_empty() {
            parts.push(Part::Addresses);
        }
        if !cards.is_empty() {
            parts.push(Part::CreditCards);
        }
        let customer = Self {
            credit_cards: CheckedCard::seal_all(cards, &command.id, vault)?,
            id: command.id,
            name: command.name,
            contact: command.contact,
            addresses: command.addresses,
            revision: 1,
            created_at: asked.at,
            updated_at: asked.at,
            data_key: None,
            erased: false,
        };
        Ok(Change {
            customer,
            kind: ChangeType::Created,
            parts,
            asked,
        })
    }

    fn next_revision(
        &self,
        command: UpdateCustomer,
        form: EmailForm,
        asked: Asked,
        vault: &dyn CardVault,
    ) -> Result<Option<Change>, CustomerError> {
        // Every part is checked before any is taken, so that a bad one is named even if nothing else differs.
        if let Some(name) = &command.name {
            name.check()?;
        }
        if let Some(contact) = &command.contact {
            contact.check(form)?;
        }
        if let Some(addresses) = &command.addresses {
            Address::check_all(addresses)?;
        }
        let cards = command.credit_cards.map(CardDraft::check_all).transpose()?;

        let mut next = self.clone();
        let mut parts = Vec::new();
        if let Some(name) = command.name.filter(|name| *name != self.name) {
            next.name = name;
            parts.push(Part::Name);
        }
        if let Some(contact) = command.contact.filter(|contact| *contact != self.contact) {
            next.contact = contact;
            parts.push(Part::Contact);
        }
        if let Some(addresses) = command.addresses.filter(|list| *list != self.addresses) {
            next.addresses = addresses;
            parts.push(Part::Addresses);
        }
        if let Some(cards) =
            cards.filter(|cards| !CheckedCard::are(cards, &self.credit_cards, &self.id, vault))
        {
            next.credit_cards = CheckedCard::seal_all(cards, &self.id, vault)?;
            parts.push(Part::CreditCards);
        }
        if parts.is_empty() {
            return Ok(None);
        }
        next.revision += 1;
        // A clock that was set back does not make a change older than the one before it.
        next.updated_at = asked.at.max(self.updated_at);
        Ok(Some(Change {
            customer: next,
            kind: ChangeType::Updated,
            parts,
            asked,
        }))
    }

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

    /// A customer as an event tells of it: for a rebuild from the log. Rules are not checked again: they held when
    /// the event was made, and may have become stricter since. Without the person it is one who was erased.
    pub(super) fn restore(
        told: super::event::CustomerChangeEvent,
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
            id: told.id,
            name,
            contact,
            addresses,
            credit_cards,
            data_key: data_key.filter(|_| !erased),
            erased,
            revision: told.revision,
            created_at: told.created_at,
            updated_at: told.updated_at,
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
