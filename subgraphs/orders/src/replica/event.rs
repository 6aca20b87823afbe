//! Orders' own reading of accounts' `CustomerChangeEvent`: it takes what it needs and ignores the rest.
//!
//! The contract is `schema/events/customer-change-event.v2.json`, and version 1 before it; samples in `test-data/events` hold this reading to it.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;
use tandem_kit::{
    data_keys::{DataKey, Opener},
    kafka::{
        cloudevents,
        message::{Message, Rejection},
    },
    store::StoreError,
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

/// The change after which there is no person any more.
const ERASED: &str = "ERASED";

/// What orders takes from the body of the event.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerChange {
    /// Whose.
    pub id: String,
    /// The revision that it made.
    pub revision: i64,
    changed_at: Timestamp,
    #[serde(default)]
    change_type: String,
    sealed: Option<String>,
    name: Option<Name>,
    contact: Option<Contact>,
    addresses: Option<Vec<Address>>,
}

/// What orders takes of the person.
#[derive(Debug, Deserialize)]
struct Person {
    name: Name,
    contact: Contact,
    #[serde(default)]
    addresses: Vec<Address>,
}

impl CustomerChange {
    /// Whether it takes the customer's data key to read it.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whose key sealed it, and when; `None` if it is plain.
    #[must_use]
    pub fn sealed_subject(&self) -> Option<(String, DateTime<Utc>)> {
        self.is_sealed()
            .then(|| (self.id.clone(), self.changed_at.into()))
    }

    /// The state that it leaves, with the customer's data key and the same wrapped. Sealed and without the key, it is of a
    /// customer who was erased.
    ///
    /// # Errors
    /// When it does not open with this key.
    pub fn into_customer(
        self,
        key: Option<&(DataKey, String)>,
    ) -> Result<ReplicaCustomer, Rejection> {
        let person = match (&self.sealed, key) {
            (Some(sealed), Some((key, _))) => {
                let place = format!("customer/{}/{}", self.id, self.revision);
                let plain = key
                    .open(sealed, &place)
                    .map_err(|error| Rejection::new(format!("sealed: {error}")))?;
                let person: Person = serde_json::from_slice(&plain)
                    .map_err(|error| Rejection::new(format!("sealed: {error}")))?;
                Some(person)
            }
            (Some(_), None) => None,
            (None, _) => self.name.zip(self.contact).map(|(name, contact)| Person {
                name,
                contact,
                addresses: self.addresses.unwrap_or_default(),
            }),
        };
        let erased = person.is_none();
        let person = person.unwrap_or_else(|| Person {
            name: Name::default(),
            contact: Contact::default(),
            addresses: Vec::new(),
        });
        Ok(ReplicaCustomer {
            id: self.id,
            name: person.name,
            contact: person.contact,
            addresses: person.addresses,
            revision: self.revision,
            changed_at: self.changed_at,
            replicated_at: Timestamp::now(),
            data_key: key.map(|(_, wrapped)| wrapped.clone()).filter(|_| !erased),
            erased,
        })
    }
}

/// Opens changes, each with its customer's key. One that does not open is left out, and said.
///
/// # Errors
/// When the keys cannot be told now.
pub async fn open(
    opener: &Opener,
    changes: Vec<CustomerChange>,
) -> Result<Vec<ReplicaCustomer>, StoreError> {
    let sealed = changes
        .iter()
        .filter_map(CustomerChange::sealed_subject)
        .collect();
    let keys = opener.keys_of(&sealed).await?;
    Ok(changes
        .into_iter()
        .filter_map(|change| open_one(change, &keys))
        .collect())
}

/// Opens one change with whatever key is its customer's. One that does not open is said.
pub(super) fn open_one(
    change: CustomerChange,
    keys: &HashMap<String, (DataKey, String)>,
) -> Option<ReplicaCustomer> {
    let (id, revision) = (change.id.clone(), change.revision);
    change
        .into_customer(keys.get(&id))
        .inspect_err(|error| {
            tracing::error!(customer = id, revision, %error, "a customer's change does not open");
        })
        .ok()
}

/// Reads a customer's change, without opening what is sealed.
///
/// # Errors
/// What of the message is missing, cannot be read, or breaks a rule.
pub fn read(message: &Message) -> Result<CustomerChange, Rejection> {
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
    let is_plain = change.name.is_some() && change.contact.is_some();
    if change.change_type != ERASED && !change.is_sealed() && !is_plain {
        return Err(Rejection::new(
            "the body has neither `sealed` nor `name` and `contact`",
        ));
    }
    Ok(change)
}

/// Whether a text can be the id of a customer.
#[must_use]
pub fn is_customer_id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}
