//! The commands on a customer. Each computes the next state from the present one, or is refused.

use super::{
    Customer, Person,
    change::{Asked, Change, ChangeType, Part},
    error::CustomerError,
};
use crate::domain::{
    Address, CardDraft, CardVault, Contact, CustomerId, EmailForm, Name, card::CheckedCard,
};

/// The data of a customer to create.
#[derive(Clone, Debug)]
pub struct CreateCustomer {
    /// The id.
    pub id: CustomerId,
    /// The customer's name.
    pub name: Name,
    /// Phone numbers and e-mail address.
    pub contact: Contact,
    /// At most [`MAX_ADDRESSES`](crate::domain::MAX_ADDRESSES).
    pub addresses: Vec<Address>,
    /// At most [`MAX_CARDS`](crate::domain::MAX_CARDS).
    pub credit_cards: Vec<CardDraft>,
}

/// The parts to change. `None` leaves a part unchanged. A list is replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct UpdateCustomer {
    /// The customer's name.
    pub name: Option<Name>,
    /// Phone numbers and e-mail address.
    pub contact: Option<Contact>,
    /// At most [`MAX_ADDRESSES`](crate::domain::MAX_ADDRESSES).
    pub addresses: Option<Vec<Address>>,
    /// At most [`MAX_CARDS`](crate::domain::MAX_CARDS).
    pub credit_cards: Option<Vec<CardDraft>>,
}

impl Customer {
    /// Creates a customer. The form of its e-mail address is checked.
    ///
    /// # Errors
    /// When a customer with this id exists or has been erased, or a field breaks its rule.
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
    /// revision and no event. The form of the e-mail address is checked.
    ///
    /// # Errors
    /// When there is no such customer, its revision is not the expected one, or a field breaks its rule.
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

    /// Creates the customer, or makes the existing customer equal to what is given. `None` when it is equal already.
    /// The e-mail address may be any text, because this is the documented REST route.
    ///
    /// # Errors
    /// When a field breaks its rule.
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

    /// Erases a customer. What remains is a stub of id, revision and times. `None` when the customer was already
    /// erased.
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
        // Every part is checked before any of them is compared. So a part that breaks a rule is reported even if
        // nothing else differs.
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
        // A clock that was set back must not make a change older than the one before it.
        next.updated_at = asked.at.max(self.updated_at);
        Ok(Some(Change {
            customer: next,
            kind: ChangeType::Updated,
            parts,
            asked,
        }))
    }
}
