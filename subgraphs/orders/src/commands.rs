//! The commands on orders. A command turns a request into a decision of the aggregate, with what the replica knows of
//! the customer.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use tandem_event_path::{
    commands::{CommandError, CommandHandler, Decision, Expectation, Gate, repeated},
    data_keys::DataKey,
    sealing::{OpenError, Sealer},
    store::{AggregateStore, StoreError},
};
use tandem_model::request_key::RequestKey;
use tandem_runtime::{shutdown::Shutdown, trace_context::TraceContext};

use crate::{
    domain::{
        AddressType, Order, OrderChangeEvent, OrderError, OrderItem, OrderStatus, Placement,
        address,
    },
    erasure::Forgetting,
    replica::{Replica, ReplicaCustomer, Waited, event::is_customer_id},
};

/// How long an order waits for a customer who is not known yet. The event of a customer who was created a moment ago
/// may still be on its way here.
const NEWCOMER_WAIT: Duration = Duration::from_millis(250);

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The rules do not allow it.
    #[error(transparent)]
    Rule(#[from] OrderError),
    /// Too many other writers changed the order at the same time. A later attempt may succeed.
    #[error("the order is being changed by too many at once; try again")]
    Contended,
    /// Too many changes of the order wait to be published to Kafka. A later attempt may succeed.
    #[error("too many changes of this order wait to be published; try again later")]
    Backlogged,
    /// The event of the change would be larger than Kafka accepts.
    #[error(
        "the order is too large to be published: {bytes} bytes, expected at most {most}; give fewer items or shorter texts"
    )]
    TooLarge {
        /// The size of its body in bytes.
        bytes: usize,
        /// The maximum size in bytes.
        most: usize,
    },
    /// The idempotency key was used for a different request.
    #[error(
        "this idempotency key was used for another request; give each request a key of its own, and the same input when asking again"
    )]
    KeyReused,
    /// The store is new and still being filled from the log. A later attempt will succeed.
    #[error("the store of orders is being filled from the log; try again in a moment")]
    Filling,
    /// A newer change of the order waits for its data key.
    #[error(
        "a newer change of this order waits for its customer's data key; `tandem keys waiting` says more"
    )]
    Waiting,
    /// The store does not answer. Whether the change was made is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The customer's data key cannot be opened, because it is wrapped with another sealing key.
    #[error("the customer's data key cannot be used: {0}")]
    Key(#[from] OpenError),
    /// The event could not be written as JSON.
    #[error("the event cannot be written: {0}")]
    Event(#[from] serde_json::Error),
}

impl From<CommandError<Refused>> for Refused {
    fn from(error: CommandError<Refused>) -> Self {
        match error {
            CommandError::Rejected(refused) => refused,
            CommandError::Contended => Self::Contended,
            CommandError::Backlogged => Self::Backlogged,
            CommandError::TooLarge { bytes, most } => Self::TooLarge { bytes, most },
            CommandError::KeyReused => Self::KeyReused,
            CommandError::Filling => Self::Filling,
            CommandError::Waiting => Self::Waiting,
            CommandError::Unavailable(error) => Self::Store(error),
        }
    }
}

/// The caller, and the trace of the request.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The caller. It is recorded as `changedBy`.
    pub changed_by: String,
    /// The `traceparent` that the event carries.
    pub traceparent: Option<String>,
}

/// A request to place an order.
#[derive(Clone, Debug)]
pub struct PlaceOrder {
    /// The customer.
    pub customer_id: String,
    /// The items of the order.
    pub items: Vec<OrderItem>,
    /// The type of the customer's address to ship to.
    pub ship_to: AddressType,
    /// A repeated request of the same caller with the same key gets the first answer again.
    pub idempotency_key: Option<RequestKey>,
}

/// Carries out commands on orders.
#[derive(Clone)]
pub struct OrderCommands {
    handler: CommandHandler<Order>,
    replica: Replica,
    sealer: Sealer,
    shutdown: Shutdown,
}

impl OrderCommands {
    /// Creates the commands from the handler that executes them and the replica that knows the customers. `sealer`
    /// opens the customers' data keys. On shutdown, commands in flight are completed.
    #[must_use]
    pub fn new(
        handler: CommandHandler<Order>,
        replica: Replica,
        sealer: Sealer,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            handler,
            replica,
            sealer,
            shutdown: shutdown.clone(),
        }
    }

    fn now(&self) -> DateTime<Utc> {
        self.handler.clock().now().into()
    }

    /// The store of orders.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn AggregateStore<Order>> {
        self.handler.store()
    }

    /// The gate is closed while orders and replica are filled from the log. Until it opens, something that they lack
    /// may still be in the log.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        self.handler.gate()
    }

    /// Places an order. The command runs to its end even if the caller disconnects, including the steps after the
    /// write.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn place(&self, request: PlaceOrder, origin: &Origin) -> Result<Order, Refused> {
        let (commands, origin) = (self.clone(), origin.clone());
        self.shutdown
            .spawn(TraceContext::carried(async move {
                commands.carry_out(request, &origin).await
            }))
            .await
            .map_err(|error| {
                StoreError::Unavailable(format!("a command was broken off: {error}"))
            })?
    }

    async fn carry_out(&self, request: PlaceOrder, origin: &Origin) -> Result<Order, Refused> {
        let key = request.idempotency_key;
        // The first answer is looked up before the rules are checked, because their result may have changed since the
        // first request.
        if let Some(key) = &key
            && let Some(first) = self.store().first_answer(key).await?
        {
            return Ok(repeated::<_, Refused>(first, key, None)?);
        }
        let id = self.handler.clock().new_id().to_string();
        let unaddressed = Placement {
            customer_id: request.customer_id,
            items: request.items,
            ship_to: None,
        };
        // Everything that does not depend on the customer is checked before the code waits for the customer.
        let mut order = Order::place(id.clone(), unaddressed, self.now())?;
        let customer = self.customer(&order.customer_id).await?;
        order.ship_to = address::ship_to(&customer.addresses, request.ship_to)?;
        order.data_key = customer.data_key;
        let decide = |present: Option<&Order>| match present {
            Some(_) => Ok(None),
            None => self.decision(order.clone(), origin).map(Some),
        };
        let placed = self
            .handler
            .execute(&id, key, Expectation::New, decide)
            .await?;
        // The customer may have been erased meanwhile. The projection of the erasure may have run before this order was
        // stored.
        let customer = self.replica.get(&placed.customer_id).await?;
        if customer.is_some_and(|customer| customer.erased) {
            Forgetting::new(Arc::clone(self.store()))
                .forget(&placed.customer_id)
                .await?;
            return Ok(placed.without_person());
        }
        Ok(placed)
    }

    /// Advances an order by one step.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn advance(
        &self,
        id: &str,
        to: OrderStatus,
        expected_revision: Option<i64>,
        origin: &Origin,
    ) -> Result<Order, Refused> {
        self.change(id, origin, |order| {
            order.advance(to, expected_revision, self.now())
        })
        .await
    }

    /// Cancels an order.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn cancel(
        &self,
        id: &str,
        reason: Option<String>,
        expected_revision: Option<i64>,
        origin: &Origin,
    ) -> Result<Order, Refused> {
        self.change(id, origin, |order| {
            order.cancel(reason.clone(), expected_revision, self.now())
        })
        .await
    }

    async fn change(
        &self,
        id: &str,
        origin: &Origin,
        change: impl Fn(&Order) -> Result<Order, OrderError> + Send + Sync,
    ) -> Result<Order, Refused> {
        let unknown = || OrderError::NotFound { id: id.to_owned() };
        if !Order::is_id(id) {
            return Err(unknown().into());
        }
        let decide = |present: Option<&Order>| {
            let order = present.ok_or_else(unknown)?;
            self.decision(change(order)?, origin).map(Some)
        };
        let changed = self
            .handler
            .execute(id, None, Expectation::Existing, decide)
            .await?;
        Ok(changed)
    }

    async fn customer(&self, customer_id: &str) -> Result<ReplicaCustomer, Refused> {
        let unknown = || OrderError::CustomerUnknown {
            customer_id: customer_id.chars().take(64).collect(),
        };
        if !is_customer_id(customer_id) {
            return Err(unknown().into());
        }
        // The replica of a new store is filled together with its orders. A customer that it lacks may still be in the
        // log.
        if self.handler.is_filling() {
            return Err(Refused::Filling);
        }
        let waited = self
            .replica
            .wait_for_revision(customer_id, 1, NEWCOMER_WAIT)
            .await?;
        match waited {
            Waited::Arrived(customer) if !customer.erased => Ok(*customer),
            Waited::Arrived(_) | Waited::Behind(_) => Err(unknown().into()),
        }
    }

    fn decision(&self, mut state: Order, origin: &Origin) -> Result<Decision<Order>, Refused> {
        state.data_key = match state.data_key {
            Some(wrapped) => {
                let subject = &state.customer_id;
                Some(DataKey::for_writing(&self.sealer, wrapped, subject)?)
            }
            None => None,
        };
        let told = OrderChangeEvent::of(&state, &origin.changed_by);
        let told = match &state.data_key {
            Some(wrapped) => {
                let key = DataKey::unwrap(&self.sealer, wrapped, &state.customer_id)?;
                told.seal(&key)?
            }
            None => told,
        };
        Ok(Decision {
            event: told
                .into_cloud_event(self.handler.clock().new_id(), origin.traceparent.clone())?,
            state,
            companions: Vec::new(),
            forget_answers: false,
        })
    }
}
