//! The audit trail of orders: a projection of `orders.order.change`, so what it shows is what Kafka holds.
//!
//! Every change of an order passes here after it is stored, also when the process that wrote it has died: so this is where an order
//! that was written while its customer was being erased is found, and made to forget the person.

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

/// The projection's name and consumer group.
pub const NAME: &str = "orders-audit";
/// The audit trail's name in the store.
pub const COLLECTION: &str = "order.changes";
/// Where messages go that cannot be taken.
pub const DEAD_LETTER_TOPIC: &str = "orders.order.change.DLT";

/// Writes orders' changes into the audit trail.
pub struct AuditProjection {
    changes: Arc<dyn ChangeLog>,
    replica: Replica,
    forgetting: Forgetting,
}

impl AuditProjection {
    /// A projection into this audit trail; orders of those whom this replica knows to be erased forget them.
    #[must_use]
    pub fn new(changes: Arc<dyn ChangeLog>, replica: Replica, forgetting: Forgetting) -> Self {
        Self {
            changes,
            replica,
            forgetting,
        }
    }

    /// Takes the person out of orders of those who are erased by now. Who is erased later is forgotten then: the order is stored.
    async fn forget_erased(&self, customers: BTreeSet<String>) -> Result<(), StoreError> {
        let ids: Vec<String> = customers.into_iter().collect();
        let found = self.replica.store().get_many(&ids).await?;
        for customer in found.into_iter().flatten().filter(|it| it.erased) {
            self.forgetting.forget(&customer.id).await?;
        }
        Ok(())
    }
}

/// A change of an order as the audit trail takes it.
#[derive(Clone, Debug)]
pub struct Audited {
    /// The entry.
    pub record: ChangeRecord,
    /// Whose order it is.
    pub customer_id: String,
}

/// What the audit trail takes of an event that is first seen at this position.
///
/// # Errors
/// What of the message is missing, cannot be read, or breaks a rule.
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
