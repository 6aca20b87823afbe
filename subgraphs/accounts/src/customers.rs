//! What may be asked of accounts, whichever way it comes: a command is carried out on the store, with its event.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use tandem_kit::{
    commands::{CommandError, CommandHandler, Expectation},
    graphql::Timestamp,
    trace_context::TraceContext,
};

use crate::{
    domain::{
        Address, Asked, CardDraft, CardVault, Change, Contact, CreateCustomer, Customer,
        CustomerError, CustomerId, Name, UpdateCustomer,
    },
    telling::Teller,
};

/// How often another id is assigned when the assigned one is taken.
const ASSIGN_TRIES: usize = 8;

/// Why a command was not carried out.
pub type Failure = CommandError<CustomerError>;

/// Who asks, and in which trace.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The token's subject, or `anonymous`, or `legacy-rest`.
    pub by: String,
    /// The trace of the request, if there is one.
    pub trace: Option<TraceContext>,
}

impl Origin {
    fn asks_now(&self) -> Asked {
        Asked {
            by: self.by.clone(),
            at: Timestamp::now(),
            traceparent: self.trace.as_ref().map(ToString::to_string),
        }
    }
}

/// A caller's key for one request: the same key of the same caller within a day gets the first answer again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// A key that is too long or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have 1 to {max} characters, such as a UUID", max = IdempotencyKey::MAX_LENGTH)]
pub struct InvalidKey;

impl IdempotencyKey {
    /// Most characters of a key.
    pub const MAX_LENGTH: usize = 200;

    /// The key `given` by this caller. Callers do not share keys.
    ///
    /// # Errors
    /// When it is empty or has more than [`Self::MAX_LENGTH`] characters.
    pub fn new(caller: &str, given: &str) -> Result<Self, InvalidKey> {
        if given.is_empty() || given.chars().count() > Self::MAX_LENGTH {
            return Err(InvalidKey);
        }
        // The caller's length goes first, so that no two pairs of caller and key read alike.
        let digest = Sha256::new()
            .chain_update(caller.len().to_be_bytes())
            .chain_update(caller)
            .chain_update(given)
            .finalize();
        Ok(Self(format!("{digest:x}")))
    }
}

/// A customer to be made; without an id one is assigned.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// Its identity, if the caller chooses it.
    pub id: Option<CustomerId>,
    /// What it is called.
    pub name: Name,
    /// How it is reached.
    pub contact: Contact,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// Its cards.
    pub credit_cards: Vec<CardDraft>,
}

/// Carries out commands on customers. Clones share it.
#[derive(Clone)]
pub struct Customers {
    handler: CommandHandler<Customer>,
    vault: Arc<dyn CardVault>,
    teller: Teller,
}

impl fmt::Debug for Customers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Customers")
    }
}

impl Customers {
    /// Customers that this handler keeps, this vault seals the cards of, and this teller tells of.
    #[must_use]
    pub fn new(
        handler: CommandHandler<Customer>,
        vault: Arc<dyn CardVault>,
        teller: Teller,
    ) -> Self {
        Self {
            handler,
            vault,
            teller,
        }
    }

    /// Makes a customer.
    ///
    /// # Errors
    /// When the id is in use, a field does not keep its rule, or the store is away.
    pub async fn create(
        &self,
        customer: NewCustomer,
        key: Option<IdempotencyKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        let is_assigned = customer.id.is_none();
        let mut command = CreateCustomer {
            id: customer.id.unwrap_or_else(CustomerId::assign),
            name: customer.name,
            contact: customer.contact,
            addresses: customer.addresses,
            credit_cards: customer.credit_cards,
        };
        for _ in 1..ASSIGN_TRIES {
            match self.try_create(&command, key.clone(), origin).await {
                Err(CommandError::Rejected(
                    CustomerError::AlreadyExists(_) | CustomerError::Erased(_),
                )) if is_assigned => command.id = CustomerId::assign(),
                other => return other,
            }
        }
        self.try_create(&command, key, origin).await
    }

    async fn try_create(
        &self,
        command: &CreateCustomer,
        key: Option<IdempotencyKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        self.execute(&command.id, key, Expectation::New, |present| {
            Customer::create(
                present,
                command.clone(),
                origin.asks_now(),
                self.vault.as_ref(),
            )
            .map(Some)
        })
        .await
    }

    /// Changes the given parts of a customer.
    ///
    /// # Errors
    /// When there is none, its revision is not the expected one, a field does not keep its rule, or the store is away.
    pub async fn update(
        &self,
        id: &CustomerId,
        command: UpdateCustomer,
        expected_revision: Option<i64>,
        key: Option<IdempotencyKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        self.execute(id, key, Expectation::Existing, |present| {
            Customer::update(
                present,
                id,
                command.clone(),
                expected_revision,
                origin.asks_now(),
                self.vault.as_ref(),
            )
        })
        .await
    }

    /// Makes the customer, or makes the one there is equal to what is given.
    ///
    /// # Errors
    /// When a field does not keep its rule, or the store is away.
    pub async fn replace_or_create(
        &self,
        command: CreateCustomer,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        let id = command.id.clone();
        self.execute(&id, None, Expectation::New, |present| {
            Customer::replace_or_create(
                present,
                command.clone(),
                origin.asks_now(),
                self.vault.as_ref(),
            )
        })
        .await
    }

    /// Erases a customer: state, data key and first answers, in one step. Again it gives the same answer: the stub that stays.
    ///
    /// # Errors
    /// When there is no such customer, or the store is away.
    pub async fn erase(&self, id: &CustomerId, origin: &Origin) -> Result<Customer, Failure> {
        self.execute(id, None, Expectation::Existing, |present| {
            Customer::erase(present, id, origin.asks_now())
        })
        .await
    }

    async fn execute(
        &self,
        id: &CustomerId,
        key: Option<IdempotencyKey>,
        expectation: Expectation,
        decide: impl Fn(Option<&Customer>) -> Result<Option<Change>, CustomerError> + Send + Sync,
    ) -> Result<Customer, Failure> {
        self.handler
            .execute(
                id.as_str(),
                key.map(|key| key.0),
                expectation,
                |present| match decide(present)? {
                    None => Ok(None),
                    Some(change) => self.teller.tell(change).map(Some),
                },
            )
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_do_not_share_keys() {
        let keys = [("a", "bc"), ("ab", "c"), ("", "abc"), ("abc", "x")]
            .map(|(caller, given)| IdempotencyKey::new(caller, given));
        for (index, key) in keys.iter().enumerate() {
            assert!(key.is_ok());
            assert!(!keys[index + 1..].contains(key));
        }
        assert_eq!(IdempotencyKey::new("a", "k"), IdempotencyKey::new("a", "k"));
    }

    #[test]
    fn a_key_has_one_to_two_hundred_characters() {
        assert_eq!(IdempotencyKey::new("a", ""), Err(InvalidKey));
        assert_eq!(IdempotencyKey::new("a", &"x".repeat(201)), Err(InvalidKey));
        assert!(IdempotencyKey::new("a", &"ä".repeat(200)).is_ok());
    }
}
