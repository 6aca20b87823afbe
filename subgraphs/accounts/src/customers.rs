//! The commands on customers, for both APIs. Each command writes the new state to the store together with its event.

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

/// How many ids are tried when the service assigns the id and the id is already in use.
const ASSIGN_TRIES: usize = 8;

/// The message for a customer whose newest change in the log cannot be opened.
pub const WAITING: &str =
    "a newer change of this customer waits for its data key; `tandem keys waiting` says more";

/// Why a command was not carried out.
pub type Failure = CommandError<CustomerError>;

/// The caller of a request, and the trace of the request.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The subject of the token, `anonymous`, or `legacy-rest`.
    pub by: String,
    /// The trace of the request, if there is one.
    pub trace: Option<TraceContext>,
}

/// The name under which earlier versions stored the answer to a request. It does not depend on the content of the
/// request.
#[must_use]
pub fn former_name(caller: &str, given: &str) -> String {
    let digest = Sha256::new()
        .chain_update(caller.len().to_be_bytes())
        .chain_update(caller)
        .chain_update(given)
        .finalize();
    format!("{digest:x}")
}

/// A customer to create. Without an id, the service assigns one.
#[derive(Clone, Debug)]
pub struct NewCustomer {
    /// The id, if the caller chooses it.
    pub id: Option<CustomerId>,
    /// The customer's name.
    pub name: Name,
    /// Phone numbers and e-mail address.
    pub contact: Contact,
    /// The customer's addresses.
    pub addresses: Vec<Address>,
    /// The customer's cards.
    pub credit_cards: Vec<CardDraft>,
}

/// Carries out commands on customers. Clones share the same handler.
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
    /// Creates the commands from the handler that stores customers, the vault that seals cards, and the encoder that
    /// makes events.
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

    /// The gate is closed while the store is filled from the log. Until it opens, a customer that the store lacks may
    /// still be in the log.
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

    /// Creates a customer.
    ///
    /// # Errors
    /// When the id is in use, a field breaks its rule, or the store is away.
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

    /// Carries out the command of a request that may have an idempotency key. A repeated request whose customer has
    /// been erased in between is refused, because its first answer no longer exists.
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
    /// When there is no such customer, its revision is not the expected one, a field breaks its rule, or the store is
    /// away.
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

    /// Creates the customer, or makes an existing customer equal to the given one.
    ///
    /// # Errors
    /// When a field breaks its rule, or the store is away.
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

    /// Erases a customer in one step: the state, the data key and the first answers. A repeated call gives the same
    /// answer, which is the stub that remains.
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
