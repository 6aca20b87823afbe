//! The audit trail of orders. It is a projection of `orders.order.change`, so it shows what Kafka holds.
//!
//! Every stored change of an order passes through this projection, even if the process that wrote it has died. So this
//! is where an order is found that was written while its customer was being erased. The projection then removes the
//! personal data from the order.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use tandem_event_path::{
    projection::Projection,
    store::{ChangeLog, ChangeRecord, StoreError},
};
use tandem_model::{
    cloudevents,
    message::{Message, Position, Rejection},
};

use crate::{
    domain::{OrderChangeEvent, event::KIND},
    erasure::Forgetting,
    replica::Replica,
};

/// The name of the projection and of its consumer group.
pub const NAME: &str = "orders-audit";
/// The name of the audit trail in the store.
pub const COLLECTION: &str = "order.changes";
/// The topic for messages that cannot be processed.
pub const DEAD_LETTER_TOPIC: &str = "orders.order.change.DLT";

/// Writes the changes of orders to the audit trail.
pub struct AuditProjection {
    changes: Arc<dyn ChangeLog>,
    replica: Replica,
    forgetting: Forgetting,
}

impl AuditProjection {
    /// Creates a projection into this audit trail. It removes the personal data from the orders of customers that this
    /// replica knows to be erased.
    #[must_use]
    pub fn new(changes: Arc<dyn ChangeLog>, replica: Replica, forgetting: Forgetting) -> Self {
        Self {
            changes,
            replica,
            forgetting,
        }
    }

    /// Removes the personal data from the orders of customers who are erased by now. The orders are stored already, so
    /// a later erasure finds them itself.
    async fn forget_erased(&self, customers: BTreeSet<String>) -> Result<(), StoreError> {
        let ids: Vec<String> = customers.into_iter().collect();
        let found = self.replica.store().get_many(&ids).await?;
        for customer in found.into_iter().flatten().filter(|it| it.erased) {
            self.forgetting.forget(&customer.id).await?;
        }
        Ok(())
    }
}

/// A change of an order, as the audit trail stores it.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The entry in the trail.
    pub record: ChangeRecord,
    /// The customer of the order.
    pub customer_id: String,
}

/// The entry for an event that was first seen at the position of this message.
///
/// # Errors
/// The part of the message that is missing, cannot be read, or breaks a rule.
pub fn read(message: &Message) -> Result<Audited, Rejection> {
    let event = cloudevents::read(message)?;
    let change =
        OrderChangeEvent::read(&event).map_err(|error| Rejection::new(error.to_string()))?;
    tandem_model::change::judge(message, &event, KIND, &change.id, change.revision)?;
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
    let record = ChangeRecord {
        subject: change.id,
        revision: change.revision,
        event_id: event.id,
        kind: change.change_type.name().to_owned(),
        changed_at: change.changed_at.into(),
        changed_by: change.changed_by,
        changed_fields: parts,
        partition: message.position.partition,
        offset: message.position.offset,
    };
    Ok(Audited {
        record,
        customer_id: change.customer_id,
    })
}

#[async_trait]
impl Projection for AuditProjection {
    type Item = Audited;

    fn name(&self) -> &'static str {
        NAME
    }

    fn decode(&self, message: &Message) -> Result<Audited, Rejection> {
        read(message)
    }

    fn subject<'a>(&self, item: &'a Audited) -> &'a str {
        &item.record.subject
    }

    async fn apply(&self, items: Vec<(Position, Audited)>) -> Result<(), StoreError> {
        let (records, customers) = items
            .into_iter()
            .map(|(_, item)| (item.record, item.customer_id))
            .unzip::<_, _, Vec<_>, BTreeSet<_>>();
        self.changes.append(records).await?;
        self.forget_erased(customers).await
    }
}

impl From<Audited> for ChangeRecord {
    fn from(audited: Audited) -> Self {
        audited.record
    }
}
