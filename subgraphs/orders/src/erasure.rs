//! The effects of a customer's erasure in orders. Events are read without personal data, and personal data is removed
//! from stored orders.

use std::sync::Arc;

use async_trait::async_trait;
use tandem_event_path::{
    data_keys::{DataKey, Keys, Opener, Unopened},
    fault::{self, Fault},
    log_restore::Reencodes,
    rebuild::{Decoded, ReadStates},
    sealing::Sealer,
    store::{AggregateStore, ChangeRecord, Filter, PageRequest, StoreError},
};
use tandem_model::{aggregate::Aggregate, cloudevents, event::CloudEvent, message::Message};

use uuid::Uuid;

use crate::domain::{Order, OrderChangeEvent};

/// The topic of the customers' data keys, which accounts publishes.
pub const KEY_TOPIC: &str = "accounts.customer.key";

/// The number of orders in one read.
const PAGE: usize = 200;
/// How many times the orders of a customer are read again because they changed meanwhile.
const PASSES: usize = 16;

/// Opens events, each with the key of its customer. For an event that cannot be opened now, the result says why.
///
/// # Errors
/// When no source of keys answers.
pub async fn open(
    opener: &Opener,
    events: Vec<OrderChangeEvent>,
) -> Result<Vec<Result<OrderChangeEvent, Unopened>>, StoreError> {
    let sealed = events.iter().filter_map(sealed_subject).collect();
    let keys = opener.keys_of(&sealed).await?;
    Ok(events
        .into_iter()
        .map(|event| open_one(event, &keys))
        .collect())
}

/// The customer whose key sealed an event. `None` if nothing in it is sealed.
fn sealed_subject(event: &OrderChangeEvent) -> Option<String> {
    event.sealed.as_ref()?;
    Some(event.customer_id.clone())
}

/// Opens one event with the key of its customer.
///
/// # Errors
/// When the event cannot be opened now.
pub(crate) fn open_one(event: OrderChangeEvent, keys: &Keys) -> Result<OrderChangeEvent, Unopened> {
    let subject = event.customer_id.clone();
    event.open(keys.of(&subject)).map_err(|error| Unopened {
        subject,
        reason: error.to_string(),
    })
}

/// Reads orders back from their events, for a rebuild.
pub struct OrderReader(Opener);

impl OrderReader {
    /// Creates a reader that opens events with these keys.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self(opener)
    }
}

#[async_trait]
impl ReadStates<Order> for OrderReader {
    type Event = OrderChangeEvent;
    type Keys = Keys;

    fn decode(&self, message: &Message) -> Option<Decoded<OrderChangeEvent>> {
        let envelope = cloudevents::read(message).ok()?;
        let event = OrderChangeEvent::read(&envelope).ok()?;
        Some(Decoded {
            id: event.id.clone(),
            revision: event.revision,
            event,
        })
    }

    async fn keys(&self, events: &[&OrderChangeEvent]) -> Result<Self::Keys, StoreError> {
        let sealed = events
            .iter()
            .filter_map(|event| sealed_subject(event))
            .collect();
        self.0.keys_of(&sealed).await
    }

    fn open(&self, event: OrderChangeEvent, keys: &Keys) -> Result<Order, Unopened> {
        open_one(event, keys).map(OrderChangeEvent::into_order)
    }
}

/// Encodes stored orders as events again, for a log that has lost the events.
pub struct OrderEncoding(pub Sealer);

impl Reencodes<Order> for OrderEncoding {
    fn reencode(&self, state: &Order, seen: Option<&ChangeRecord>) -> Result<CloudEvent, String> {
        let by = seen.map_or("", |seen| &seen.changed_by);
        let told = OrderChangeEvent::of(state, by);
        let told = match &state.data_key {
            Some(wrapped) => {
                let key = DataKey::unwrap(&self.0, wrapped, &state.customer_id)
                    .map_err(|error| format!("the data key: {error}"))?;
                told.seal(&key).map_err(|error| error.to_string())?
            }
            None if state.customer_erased => told.of_an_erased(),
            None => told,
        };
        let lost = seen.and_then(|seen| seen.event_id.parse::<Uuid>().ok());
        let id = lost.unwrap_or_else(|| self.0.clock().new_id());
        told.into_cloud_event(id, None)
            .map_err(|error| error.to_string())
    }
}

/// Removes personal data from orders and from the first answers to their requests.
#[derive(Clone)]
pub struct Forgetting(Arc<dyn AggregateStore<Order>>);

impl Forgetting {
    /// Works on the orders in this store.
    #[must_use]
    pub fn new(orders: Arc<dyn AggregateStore<Order>>) -> Self {
        Self(orders)
    }

    /// Removes the personal data from all orders of a customer. Repeating it does no harm.
    ///
    /// # Errors
    /// When the store does not answer. Some orders may be done then.
    pub async fn forget(&self, customer_id: &str) -> Result<(), StoreError> {
        if fault::is_on(Fault::PersonNotForgotten) {
            return Ok(());
        }
        let mut ids = Vec::new();
        for pass in 0..PASSES {
            let mut found_one = false;
            let mut after = None;
            loop {
                let request = PageRequest {
                    filter: Filter(vec![("customerId", customer_id.to_owned())]),
                    after,
                    limit: PAGE,
                };
                let page: Vec<Order> = self
                    .0
                    .pages(&[request])
                    .await?
                    .into_iter()
                    .flatten()
                    .collect();
                let Some(last) = page.last() else { break };
                after = Some(last.id.clone());
                if pass == 0 {
                    ids.extend(page.iter().map(|order| order.id().to_owned()));
                }
                let personal: Vec<Order> = page
                    .into_iter()
                    .filter(|order| !order.customer_erased)
                    .map(Order::without_person)
                    .collect();
                found_one |= !personal.is_empty();
                self.0.restore(&personal).await?;
            }
            if !found_one {
                return self.forget_answers(&ids).await;
            }
        }
        self.forget_answers(&ids).await?;
        Err(StoreError::Unavailable(format!(
            "the orders of {customer_id} change faster than the person is taken out"
        )))
    }

    async fn forget_answers(&self, ids: &[String]) -> Result<(), StoreError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.0.forget_answers_of(ids).await
    }
}
