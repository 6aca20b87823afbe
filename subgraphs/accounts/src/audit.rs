//! The audit trail: a projection of the customers' own topic, so that what it shows is what Kafka holds.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    data_keys::{DataKey, Opener},
    event::CloudEvent,
    kafka::{
        cloudevents,
        message::{Message, Position, Rejection},
    },
    rebuild::{Heard, ReadStates},
    store::{ChangeLog, ChangeRecord, StoreError},
};

use crate::domain::{Customer, event::CustomerChangeEvent};

/// Nobody waits for the audit trail as for an answer: changes of this time share one write.
const PATIENCE: Duration = Duration::from_millis(100);

/// Writes one record for every change event.
pub struct AuditProjection {
    log: Arc<dyn ChangeLog>,
}

impl fmt::Debug for AuditProjection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AuditProjection")
    }
}

impl AuditProjection {
    /// A projection into this log.
    #[must_use]
    pub fn new(log: Arc<dyn ChangeLog>) -> Self {
        Self { log }
    }
}

fn read(message: &Message) -> Result<(CloudEvent, CustomerChangeEvent), Rejection> {
    let event = cloudevents::read(message)?;
    let told =
        CustomerChangeEvent::read(&event).map_err(|error| Rejection::new(error.to_string()))?;
    Ok((event, told))
}

/// Reads customers back from their events: for a rebuild. What is sealed and has no key any more is of an erased customer.
pub struct CustomerReader(Opener);

impl fmt::Debug for CustomerReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CustomerReader")
    }
}

impl CustomerReader {
    /// A reader with these keys.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self(opener)
    }
}

#[async_trait]
impl ReadStates<Customer> for CustomerReader {
    type Told = CustomerChangeEvent;
    type Keys = HashMap<String, (DataKey, String)>;

    fn hear(&self, message: &Message) -> Option<Heard<CustomerChangeEvent>> {
        let (_, told) = read(message).ok()?;
        Some(Heard {
            id: told.id.to_string(),
            revision: told.revision,
            told,
        })
    }

    async fn keys(&self, told: &[&CustomerChangeEvent]) -> Result<Self::Keys, StoreError> {
        let (sealed, plain): (Vec<&CustomerChangeEvent>, Vec<_>) =
            told.iter().copied().partition(|told| told.sealed.is_some());
        let plain = plain.iter().map(|told| told.id.to_string()).collect();
        let sealed = sealed
            .iter()
            .map(|told| (told.id.to_string(), told.changed_at.into()))
            .collect();
        // A customer whose last event is plain may have a key from before. It belongs to the state: with another key in its
        // place, what the first one sealed could never be read again.
        let mut keys = self.0.known_keys_of(&plain).await?;
        keys.extend(self.0.keys_of(&sealed).await?);
        Ok(keys)
    }

    fn open(&self, told: CustomerChangeEvent, keys: &Self::Keys) -> Option<Customer> {
        let (id, revision) = (told.id.clone(), told.revision);
        told.into_customer(keys.get(id.as_str()))
            .inspect_err(|error| {
                tracing::error!(%id, revision, %error, "a change cannot be put back");
            })
            .ok()
    }
}

#[async_trait]
impl Projection for AuditProjection {
    type Item = ChangeRecord;

    fn name(&self) -> &'static str {
        "accounts-audit"
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn decode(&self, message: &Message) -> Result<ChangeRecord, Rejection> {
        let (event, told) = read(message)?;
        Ok(ChangeRecord {
            subject: event.subject,
            revision: told.revision,
            event_id: event.id,
            kind: told.change_type.as_str().to_owned(),
            changed_at: told.changed_at.into(),
            changed_by: told.changed_by,
            changed_fields: told.changed_fields,
            partition: message.position.partition,
            offset: message.position.offset,
        })
    }

    async fn apply(&self, items: Vec<(Position, ChangeRecord)>) -> Result<(), StoreError> {
        self.log
            .append(items.into_iter().map(|(_, record)| record).collect())
            .await
    }
}
