//! What erasing a customer means here: events whose data key is gone are read without the person, and orders lose what is personal.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tandem_kit::{
    aggregate::Aggregate,
    data_keys::{DataKey, Opener},
    kafka::{cloudevents, message::Message},
    rebuild::{Heard, ReadStates},
    store::{AggregateStore, Filter, PageRequest, StoreError},
};

use crate::domain::{Order, OrderChangeEvent};

/// The topic of customers' data keys, as accounts publishes them.
pub const KEY_TOPIC: &str = "accounts.customer.key";

/// Orders read at once.
const PAGE: usize = 200;
/// How often the orders of a customer are gone through again because they changed meanwhile.
const PASSES: usize = 16;

/// Opens events, each with its customer's key. One that does not open is left out, and said.
///
/// # Errors
/// When the keys cannot be told now.
pub async fn open(
    opener: &Opener,
    events: Vec<OrderChangeEvent>,
) -> Result<Vec<Option<OrderChangeEvent>>, StoreError> {
    let sealed = events.iter().filter_map(sealed_subject).collect();
    let keys = opener.keys_of(&sealed).await?;
    Ok(events
        .into_iter()
        .map(|event| open_one(event, &keys))
        .collect())
}

/// Whose key sealed an event, and when; `None` if nothing in it is sealed.
fn sealed_subject(event: &OrderChangeEvent) -> Option<(String, DateTime<Utc>)> {
    event.sealed.as_ref()?;
    Some((event.customer_id.clone(), event.changed_at.into()))
}

fn open_one(
    event: OrderChangeEvent,
    keys: &HashMap<String, (DataKey, String)>,
) -> Option<OrderChangeEvent> {
    let (id, revision) = (event.id.clone(), event.revision);
    let key = keys.get(&event.customer_id);
    event
        .open(key)
        .inspect_err(|error| {
            tracing::error!(order = id, revision, %error, "an order event does not open");
        })
        .ok()
}

/// Reads orders back from their events: for a rebuild.
pub struct OrderReader(Opener);

impl OrderReader {
    /// A reader with these keys.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self(opener)
    }
}

#[async_trait]
impl ReadStates<Order> for OrderReader {
    type Told = OrderChangeEvent;
    type Keys = HashMap<String, (DataKey, String)>;

    fn hear(&self, message: &Message) -> Option<Heard<OrderChangeEvent>> {
        let event = cloudevents::read(message).ok()?;
        let told = OrderChangeEvent::read(&event).ok()?;
        Some(Heard {
            id: told.id.clone(),
            revision: told.revision,
            told,
        })
    }

    async fn keys(&self, told: &[&OrderChangeEvent]) -> Result<Self::Keys, StoreError> {
        let sealed = told
            .iter()
            .filter_map(|told| sealed_subject(told))
            .collect();
        self.0.keys_of(&sealed).await
    }

    fn open(&self, told: OrderChangeEvent, keys: &Self::Keys) -> Option<Order> {
        open_one(told, keys).map(OrderChangeEvent::into_order)
    }
}

/// Takes what is personal out of orders and their first answers.
#[derive(Clone)]
pub struct Forgetting(Arc<dyn AggregateStore<Order>>);

impl Forgetting {
    /// For the orders in this store.
    #[must_use]
    pub fn new(orders: Arc<dyn AggregateStore<Order>>) -> Self {
        Self(orders)
    }

    /// Takes the person out of all orders of a customer. Doing it again does no harm.
    ///
    /// # Errors
    /// When the store does not answer; some orders may then be done.
    pub async fn forget(&self, customer_id: &str) -> Result<(), StoreError> {
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
        Err(StoreError::Away(format!(
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
