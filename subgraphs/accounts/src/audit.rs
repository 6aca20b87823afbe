//! The audit trail: a projection of the customers' own topic, so that what it shows is what Kafka holds.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    event::CloudEvent,
    kafka::{
        cloudevents,
        message::{Message, Position, Rejection},
    },
    store::{ChangeLog, ChangeRecord, StoreError},
};

use crate::domain::{Customer, event::CustomerChangeEvent};

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

/// The customer after the change that a message tells of: what a rebuild puts back.
///
/// # Errors
/// When the message is no change of a customer.
pub fn read_customer(message: &Message) -> Result<Customer, Rejection> {
    Ok(read(message)?.1.into_customer())
}

#[async_trait]
impl Projection for AuditProjection {
    type Item = ChangeRecord;

    fn name(&self) -> &'static str {
        "accounts-audit"
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
