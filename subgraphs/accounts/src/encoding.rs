//! Event encoding. A change becomes an event, sealed or plain, together with the data key that is published before it.

use clap::ValueEnum;
use tandem_event_path::{
    commands::Decision,
    data_keys::{DataKey, publication},
    fault::{self, Fault},
    log_restore::Reencodes,
    sealing::Sealer,
    store::ChangeRecord,
};
use tandem_model::event::CloudEvent;
use uuid::Uuid;

use crate::{
    domain::{
        Change, ChangeType, Customer, CustomerError,
        event::{CustomerChangeEvent, KEY_TOPIC},
    },
    vault,
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

/// Makes the events of changes.
#[derive(Clone, Debug)]
pub struct EventEncoder {
    service: Sealer,
    personal_data: PersonalData,
}

impl EventEncoder {
    /// Creates an encoder. `service` wraps the data keys.
    #[must_use]
    pub fn new(service: Sealer, personal_data: PersonalData) -> Self {
        Self {
            service,
            personal_data,
        }
    }

    /// Whether the sealing key is being replaced. Everything that is written then is sealed with the newest key, even
    /// if the decision was made from older state.
    fn is_replacing(&self) -> bool {
        !self.service.older().is_empty() && !fault::is_on(Fault::SealedAsBefore)
    }

    /// What to store and to publish for a change. Its event gets this id.
    ///
    /// # Errors
    /// When the customer's data key cannot be opened, or the event cannot be written.
    pub fn encode(
        &self,
        mut change: Change,
        event_id: Uuid,
    ) -> Result<Decision<Customer>, CustomerError> {
        let unencodable = |error: serde_json::Error| CustomerError::NotEncoded(error.to_string());
        let id = change.customer.customer_id().to_string();
        let mut companions = Vec::new();
        // A part that cannot be opened stays unchanged. If that part is the data key, the code below returns the error.
        if self.is_replacing()
            && let Ok(Some((resealed, _))) = vault::resealed(&self.service, &change.customer)
        {
            change.customer = resealed;
        }
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
                        CustomerError::NotEncoded(format!("the data key of {id}: {error}"))
                    })?
                } else {
                    let (key, wrapped) = DataKey::make(&self.service, &id);
                    companions.push(publication(KEY_TOPIC, &id, Some(&wrapped)));
                    change.customer = change.customer.with_data_key(wrapped);
                    key
                };
                told.seal(&key).map_err(unencodable)?
            }
        };
        let event = told
            .into_cloud_event(event_id, change.asked.traceparent)
            .map_err(unencodable)?;
        Ok(Decision {
            state: change.customer,
            event,
            companions,
            forget_answers: change.kind == ChangeType::Erased,
        })
    }
}

impl Reencodes<Customer> for EventEncoder {
    fn reencode(
        &self,
        state: &Customer,
        seen: Option<&ChangeRecord>,
    ) -> Result<CloudEvent, String> {
        let id = state.customer_id().to_string();
        let (by, parts) = seen.map_or_else(Default::default, |seen| {
            (seen.changed_by.clone(), seen.changed_fields.clone())
        });
        let told = CustomerChangeEvent::again(state, by, parts);
        // The event is sealed if the earlier events were: a customer whose events are plain has no key.
        let told = match state.data_key().filter(|_| !state.is_erased()) {
            None => told,
            Some(wrapped) => {
                let key = DataKey::unwrap(&self.service, wrapped, &id)
                    .map_err(|error| format!("the data key: {error}"))?;
                told.seal(&key).map_err(|error| error.to_string())?
            }
        };
        let lost = seen.and_then(|seen| seen.event_id.parse::<Uuid>().ok());
        let id = lost.unwrap_or_else(|| self.service.clock().new_id());
        told.into_cloud_event(id, None)
            .map_err(|error| error.to_string())
    }
}
