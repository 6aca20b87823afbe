//! The commands on customers, for both APIs: each is carried out on the store, with its event.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use tandem_event_path::commands::{CommandError, CommandHandler, Expectation, Gate};
use tandem_model::request_key::RequestKey;
use tandem_runtime::trace_context::TraceContext;

use crate::{
    domain::{
        Address, Asked, CardDraft, CardVault, Change, Contact, CreateCustomer, Customer,
        CustomerError, CustomerId, Name, UpdateCustomer,
    },
    encoding::EventEncoder,
};

/// How often another id is assigned when the assigned one is taken.
const ASSIGN_TRIES: usize = 8;

/// What is said of a customer whose newest change in the log does not open.
pub const WAITING: &str =
    "a newer change of this customer waits for its data key; `tandem keys waiting` says more";

/// Why a command was not carried out.
pub type Failure = CommandError<CustomerError>;

/// The caller, and the trace of the request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The token's subject, or `anonymous`, or `legacy-rest`.
    pub by: String,
    /// The trace of the request, if there is one.
    pub trace: Option<TraceContext>,
}

/// What a version before this one kept the answer to a request under, whatever was asked for.
#[must_use]
pub fn former_name(caller: &str, given: &str) -> String {
    let digest = Sha256::new()
        .chain_update(caller.len().to_be_bytes())
        .chain_update(caller)
        .chain_update(given)
        .finalize();
    format!("{digest:x}")
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
    encoder: EventEncoder,
}

impl fmt::Debug for Customers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Customers")
    }
}

impl Customers {
    /// Customers that this handler stores, whose cards this vault seals, and whose events this encoder makes.
    #[must_use]
    pub fn new(
        handler: CommandHandler<Customer>,
        vault: Arc<dyn CardVault>,
        encoder: EventEncoder,
    ) -> Self {
        Self {
            handler,
            vault,
            encoder,
        }
    }

    /// Closed while the store is being filled from the log: who is not in it may be in the log.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        self.handler.gate()
    }

    fn asks_now(&self, origin: &Origin) -> Asked {
        Asked {
            by: origin.by.clone(),
            at: self.handler.clock().now().into(),
            traceparent: origin.trace.as_ref().map(ToString::to_string),
        }
    }

    fn assign_id(&self) -> CustomerId {
        #[allow(clippy::cast_possible_truncation)] // the lower half is as random
        CustomerId::assign(self.handler.clock().random() as u64)
    }

    /// Makes a customer.
    ///
    /// # Errors
    /// When the id is in use, a field does not keep its rule, or the store is away.
    pub async fn create(
        &self,
        customer: NewCustomer,
        key: Option<RequestKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        let is_assigned = customer.id.is_none();
        let mut command = CreateCustomer {
            id: customer.id.unwrap_or_else(|| self.assign_id()),
            name: customer.name,
            contact: customer.contact,
            addresses: customer.addresses,
            credit_cards: customer.credit_cards,
        };
        for _ in 1..ASSIGN_TRIES {
            match self.try_create(&command, key.clone(), origin).await {
                Err(CommandError::Rejected(
                    CustomerError::AlreadyExists(_) | CustomerError::Erased(_),
                )) if is_assigned => command.id = self.assign_id(),
                other => return other,
            }
        }
        self.try_create(&command, key, origin).await
    }

    /// Carries out a command of a request that may have a key. Of one that was carried out before for somebody who was erased since
    /// there is no answer left.
    async fn execute_once(
        &self,
        id: &CustomerId,
        key: Option<RequestKey>,
        expectation: Expectation,
        decide: impl Fn(Option<&Customer>) -> Result<Option<Change>, CustomerError> + Send + Sync,
    ) -> Result<Customer, Failure> {
        let customer = self.execute(id, key, expectation, decide).await?;
        if customer.is_erased() {
            let erased = CustomerError::ErasedSince(customer.customer_id().clone());
            return Err(CommandError::Rejected(erased));
        }
        Ok(customer)
    }

    async fn try_create(
        &self,
        command: &CreateCustomer,
        key: Option<RequestKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        self.execute_once(&command.id, key, Expectation::New, |present| {
            Customer::create(
                present,
                command.clone(),
                self.asks_now(origin),
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
        key: Option<RequestKey>,
        origin: &Origin,
    ) -> Result<Customer, Failure> {
        self.execute_once(id, key, Expectation::Existing, |present| {
            Customer::update(
                present,
                id,
                command.clone(),
                expected_revision,
                self.asks_now(origin),
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
                self.asks_now(origin),
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
            Customer::erase(present, id, self.asks_now(origin))
        })
        .await
    }

    async fn execute(
        &self,
        id: &CustomerId,
        key: Option<RequestKey>,
        expectation: Expectation,
        decide: impl Fn(Option<&Customer>) -> Result<Option<Change>, CustomerError> + Send + Sync,
    ) -> Result<Customer, Failure> {
        self.handler
            .execute(id.as_str(), key, expectation, |present| {
                match decide(present)? {
                    None => Ok(None),
                    Some(change) => self
                        .encoder
                        .encode(change, self.handler.clock().new_id())
                        .map(Some),
                }
            })
            .await
    }
}
