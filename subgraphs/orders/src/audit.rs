//! The audit trail of orders: a projection of `orders.order.change`, so what it shows is what Kafka holds.

use std::sync::Arc;

use async_trait::async_trait;
use tandem_kit::{
    consumer::Projection,
    kafka::{
        cloudevents,
        message::{Message, Position, Rejection},
    },
    store::{ChangeLog, ChangeRecord, StoreError},
};

use crate::domain::OrderChangeEvent;

/// The projection's name and consumer group.
pub const NAME: &str = "orders-audit";
/// The audit trail's name in the store.
pub const COLLECTION: &str = "order.changes";
/// Where messages go that cannot be taken.
pub const DEAD_LETTER_TOPIC: &str = "orders.order.change.DLT";

/// Writes orders' changes into the audit trail.
pub struct AuditProjection {
    changes: Arc<dyn ChangeLog>,
}

impl AuditProjection {
    /// A projection into this audit trail.
    #[must_use]
    pub fn new(changes: Arc<dyn ChangeLog>) -> Self {
        Self { changes }
    }
}

/// The audit record of an event that is first seen at this position.
///
/// # Errors
/// What of the message is missing, cannot be read, or breaks a rule.
pub fn record(message: &Message) -> Result<ChangeRecord, Rejection> {
    let event = cloudevents::read(message)?;
    let change =
        OrderChangeEvent::read(&event).map_err(|error| Rejection::new(error.to_string()))?;
    if message.key.as_deref() != Some(change.id.as_str()) {
        return Err(Rejection::new(format!(
            "the message's key is {:?}, but the body's id is {:?}",
            message.key, change.id
        )));
    }
    let created = change.revision == 1;
    let parts: &[&str] = match change.reason {
        _ if created => &["items", "shipTo", "status", "total"],
        Some(_) => &["cancellationReason", "status"],
        None => &["status"],
    };
    let parts = if change.changed_fields.is_empty() {
        parts.iter().map(|&part| part.to_owned()).collect()
    } else {
        change.changed_fields
    };
    Ok(ChangeRecord {
        subject: change.id,
        revision: change.revision,
        event_id: event.id,
        kind: change.change_type.name().to_owned(),
        changed_at: change.changed_at.into(),
        changed_by: change.changed_by,
        changed_fields: parts,
        partition: message.position.partition,
        offset: message.position.offset,
    })
}

#[async_trait]
impl Projection for AuditProjection {
    type Item = ChangeRecord;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<ChangeRecord, Rejection> {
        record(message)
    }

    async fn apply(&self, items: Vec<(Position, ChangeRecord)>) -> Result<(), StoreError> {
        self.changes
            .append(items.into_iter().map(|(_, record)| record).collect())
            .await
    }
}
