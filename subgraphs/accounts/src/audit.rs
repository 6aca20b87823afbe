//! The audit trail of customers. It is a projection of accounts' own topic, so it shows what Kafka holds.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tandem_event_path::{
    data_keys::{Keys, Opener, Unopened},
    projection::Projection,
    rebuild::{Decoded, ReadStates},
    store::{ChangeLog, ChangeRecord, StoreError},
};
use tandem_model::{
    change, cloudevents,
    event::ReceivedEvent,
    message::{Message, Position, Rejection},
};

use crate::domain::{
    ChangeType, Customer,
    event::{CustomerChangeEvent, TYPE},
};

/// The name of the projection. The name of its consumer group begins with it.
pub const NAME: &str = "accounts-audit";

/// How long changes are collected. Changes within this time share one answer of the broker and one write, and an idle
/// projection asks the broker no more often than this. A client that reads its own change in the trail waits this long
/// too. That is a fraction of the longest wait of such a read (1 s, and 2 s with a consistency token).
const PATIENCE: Duration = Duration::from_millis(250);

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
    /// Creates a projection that writes to this log.
    #[must_use]
    pub fn new(log: Arc<dyn ChangeLog>) -> Self {
        Self { log }
    }
}

/// Reads a change of a customer from a message: its envelope and its body.
///
/// # Errors
/// The part of the message that is missing, cannot be read, or breaks a rule.
pub fn read(message: &Message) -> Result<(ReceivedEvent, CustomerChangeEvent), Rejection> {
    let event = cloudevents::read(message)?;
    let told =
        CustomerChangeEvent::read(&event).map_err(|error| Rejection::new(error.to_string()))?;
    change::judge(message, &event, TYPE, told.id.as_str(), told.revision)?;
    Ok((event, told))
}

/// Reads customers back from their events, for a rebuild. An event that cannot be opened waits for its key.
pub struct CustomerReader(Opener);

impl fmt::Debug for CustomerReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CustomerReader")
    }
}

impl CustomerReader {
    /// Creates a reader that opens events with these keys.
    #[must_use]
    pub fn new(opener: Opener) -> Self {
        Self(opener)
    }
}

#[async_trait]
impl ReadStates<Customer> for CustomerReader {
    type Event = CustomerChangeEvent;
    type Keys = Keys;

    fn decode(&self, message: &Message) -> Option<Decoded<CustomerChangeEvent>> {
        let (_, event) = read(message).ok()?;
        Some(Decoded {
            id: event.id.to_string(),
            revision: event.revision,
            event,
        })
    }

    async fn keys(&self, events: &[&CustomerChangeEvent]) -> Result<Self::Keys, StoreError> {
        let (sealed, plain): (Vec<&CustomerChangeEvent>, Vec<_>) = events
            .iter()
            .copied()
            .partition(|event| event.sealed.is_some());
        let plain = plain.iter().map(|event| event.id.to_string()).collect();
        let sealed = sealed.iter().map(|event| event.id.to_string()).collect();
        // A customer whose last event is not sealed may have a key from an earlier event. The key belongs to the state:
        // if another key replaced it, nobody could read what the first key sealed.
        let mut keys = self.0.known_keys_of(&plain).await?;
        keys.extend(self.0.keys_of(&sealed).await?);
        Ok(keys)
    }

    fn open(&self, event: CustomerChangeEvent, keys: &Keys) -> Result<Customer, Unopened> {
        let subject = event.id.to_string();
        event
            .into_customer(keys.of(&subject))
            .map_err(|error| Unopened {
                subject,
                reason: error.to_string(),
            })
    }
}

#[async_trait]
impl Projection for AuditProjection {
    type Item = ChangeRecord;

    fn name(&self) -> &'static str {
        NAME
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn decode(&self, message: &Message) -> Result<ChangeRecord, Rejection> {
        let (event, told) = read(message)?;
        Ok(ChangeRecord {
            subject: told.id.to_string(),
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

    fn subject<'a>(&self, item: &'a ChangeRecord) -> &'a str {
        &item.subject
    }

    fn settles(&self, item: &ChangeRecord) -> bool {
        item.kind == ChangeType::Erased.as_str()
    }

    async fn apply(&self, items: Vec<(Position, ChangeRecord)>) -> Result<(), StoreError> {
        self.log
            .append(items.into_iter().map(|(_, record)| record).collect())
            .await
    }
}
