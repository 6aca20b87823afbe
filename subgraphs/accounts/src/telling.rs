//! How a change becomes what is told of it: the event, sealed or plain, and the data key that goes ahead of it.

use clap::ValueEnum;
use tandem_kit::{
    commands::Decision,
    data_keys::{DataKey, publication},
    sealing::Sealer,
};

use crate::domain::{
    Change, ChangeType, Customer, CustomerError,
    event::{CustomerChangeEvent, KEY_TOPIC},
};

/// How what is personal is written into events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PersonalData {
    /// Sealed with a key of each customer's own, so that erasing a customer makes it unreadable.
    #[default]
    Sealed,
    /// In plain, for consumers without the sealing key. An erased customer stays readable in the log.
    Plain,
}

/// Tells of changes.
#[derive(Clone, Debug)]
pub struct Teller {
    service: Sealer,
    personal_data: PersonalData,
}

impl Teller {
    /// Tells in this way; `service` wraps data keys.
    #[must_use]
    pub fn new(service: Sealer, personal_data: PersonalData) -> Self {
        Self {
            service,
            personal_data,
        }
    }

    /// What is to be stored and published of a change.
    ///
    /// # Errors
    /// When the customer's data key does not open, or the event cannot be written.
    pub fn tell(&self, mut change: Change) -> Result<Decision<Customer>, CustomerError> {
        let untold = |error: serde_json::Error| CustomerError::Untold(error.to_string());
        let id = change.customer.customer_id().to_string();
        let mut companions = Vec::new();
        let told = CustomerChangeEvent::of(&change);
        let told = match (change.kind, self.personal_data) {
            (ChangeType::Erased, _) => {
                companions.push(publication(KEY_TOPIC, &id, None));
                told
            }
            (_, PersonalData::Plain) => told,
            (_, PersonalData::Sealed) => {
                let key = if let Some(wrapped) = change.customer.data_key() {
                    DataKey::unwrap(&self.service, wrapped, &id).map_err(|error| {
                        CustomerError::Untold(format!("the data key of {id}: {error}"))
                    })?
                } else {
                    let (key, wrapped) = DataKey::make(&self.service, &id);
                    companions.push(publication(KEY_TOPIC, &id, Some(&wrapped)));
                    change.customer = change.customer.with_data_key(wrapped);
                    key
                };
                told.seal(&key).map_err(untold)?
            }
        };
        let event = told
            .into_cloud_event(change.asked.traceparent)
            .map_err(untold)?;
        Ok(Decision {
            state: change.customer,
            event,
            companions,
            forget_answers: change.kind == ChangeType::Erased,
        })
    }
}
