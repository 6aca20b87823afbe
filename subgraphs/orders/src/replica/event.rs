//! Orders' own reading of accounts' `CustomerChangeEvent`: it takes what it needs and ignores the rest.
//!
//! The contract is `schema/events/customer-change-event.v1.json`; samples in `test-data/events` hold this reading to it.

use serde::Deserialize;
use tandem_kit::{
    kafka::{
        cloudevents,
        message::{Message, Rejection},
    },
    values::Timestamp,
};

use super::customer::{Contact, Name, ReplicaCustomer};
use crate::domain::Address;

/// The topic of customers' changes.
pub const TOPIC: &str = "accounts.customer.change";
/// Where messages of that topic go that cannot be taken.
pub const DEAD_LETTER_TOPIC: &str = "accounts.customer.change.DLT";
/// CloudEvents `type` of a customer's change.
pub const KIND: &str = "CustomerChangeEvent";

/// What orders takes from the body of the event.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomerChange {
    id: String,
    name: Name,
    contact: Contact,
    #[serde(default)]
    addresses: Vec<Address>,
    revision: i64,
    changed_at: Timestamp,
}

/// Reads a customer's change as the state that it leaves.
///
/// # Errors
/// What of the message is missing, cannot be read, or breaks a rule.
pub fn read(message: &Message) -> Result<ReplicaCustomer, Rejection> {
    let event = cloudevents::read(message)?;
    if event.kind != KIND {
        return Err(Rejection::new(format!(
            "header ce_type is {}, not {KIND}",
            event.kind
        )));
    }
    let change: CustomerChange = serde_json::from_str(&event.data)
        .map_err(|error| Rejection::new(format!("the body is not a customer change: {error}")))?;
    if !is_customer_id(&change.id) {
        return Err(Rejection::new(
            "id is not 1 to 64 characters of A-Z a-z 0-9 _ -",
        ));
    }
    if message.key.as_deref() != Some(change.id.as_str()) {
        return Err(Rejection::new(format!(
            "the message's key is {:?}, but the body's id is {:?}",
            message.key, change.id
        )));
    }
    if event.subject != change.id {
        return Err(Rejection::new(format!(
            "header ce_subject is {:?}, but the body's id is {:?}",
            event.subject, change.id
        )));
    }
    if change.revision < 1 {
        return Err(Rejection::new(format!(
            "revision is {}; expected 1 or more",
            change.revision
        )));
    }
    Ok(ReplicaCustomer {
        id: change.id,
        name: change.name,
        contact: change.contact,
        addresses: change.addresses,
        revision: change.revision,
        changed_at: change.changed_at,
        replicated_at: Timestamp::now(),
    })
}

/// Whether a text can be the id of a customer.
#[must_use]
pub fn is_customer_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
