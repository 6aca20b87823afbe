//! How orders reads the `CustomerChangeEvent` of accounts: it uses the fields that it needs and ignores the rest.
//!
//! The contract is `schema/events/customer-change-event.v2.json`, and version 1 before it. The samples in
//! `test-data/events` check this reader against it.

use serde::Deserialize;
use tandem_event_path::{
    data_keys::{Keys, Opener, Unopened},
    store::StoreError,
};
pub use tandem_model::change::is_id as is_customer_id;
use tandem_model::{
    cloudevents,
    json::read_object,
    message::{Message, Rejection},
    seal::Key,
    values::Timestamp,
};

use super::customer::{Contact, Name, ReplicaCustomer};
use crate::domain::Address;

/// The topic of customers' changes.
pub const TOPIC: &str = "accounts.customer.change";
/// The dead letter topic: messages of that topic that cannot be processed are copied here.
pub const DEAD_LETTER_TOPIC: &str = "accounts.customer.change.DLT";
/// The CloudEvents `type` of a customer's change.
pub const KIND: &str = "CustomerChangeEvent";

/// The type of the change that erases the customer.
const ERASED: &str = "ERASED";
/// All change types of a customer. Accounts accepts the same ones.
const CHANGE_TYPES: [&str; 3] = ["CREATED", "UPDATED", ERASED];

/// The fields of the event's body that orders uses.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerChange {
    /// The id of the customer.
    pub id: String,
    /// The revision that the change made.
    pub revision: i64,
    /// When the change was made.
    pub changed_at: Timestamp,
    change_type: String,
    /// Not used here. An event that accounts would refuse is refused here too, because a rebuild of either service must
    /// give the same customers.
    #[serde(rename = "createdAt")]
    _created_at: Timestamp,
    #[serde(rename = "updatedAt")]
    _updated_at: Timestamp,
    #[serde(rename = "changedBy")]
    _changed_by: String,
    sealed: Option<String>,
    name: Option<Name>,
    contact: Option<Contact>,
    addresses: Option<Vec<Address>>,
}

/// The personal data that orders uses.
#[derive(Debug, Deserialize)]
struct Person {
    name: Name,
    contact: Contact,
    #[serde(default)]
    addresses: Vec<Address>,
}

impl CustomerChange {
    /// Whether the customer's data key is needed to read the change.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether the change erases the customer.
    #[must_use]
    pub fn is_erasure(&self) -> bool {
        self.change_type == ERASED
    }

    /// The customer whose key sealed the change. `None` if it is not sealed.
    #[must_use]
    pub fn sealed_subject(&self) -> Option<String> {
        self.is_sealed().then(|| self.id.clone())
    }

    /// The customer after the change. `key` is what is known of the customer's data key, and `now` becomes the time of
    /// replication.
    ///
    /// # Errors
    /// When the event cannot be opened, because the key is missing or is a different one.
    pub fn into_customer(self, key: Key<'_>, now: Timestamp) -> Result<ReplicaCustomer, Rejection> {
        let person = match (&self.sealed, key) {
            (Some(sealed), Key::Here(key, _)) => {
                let place = format!("customer/{}/{}", self.id, self.revision);
                let plain = key
                    .open(sealed, &place)
                    .map_err(|error| Rejection::new(format!("sealed: {error}")))?;
                let person: Person = read_object(&plain)
                    .map_err(|error| Rejection::new(format!("sealed: {error}")))?;
                Some(person)
            }
            (Some(_), Key::Erased) => None,
            (Some(_), Key::Missing(reason)) => return Err(Rejection::new(reason)),
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
            replicated_at: now,
            data_key: match key {
                Key::Here(_, wrapped) if !erased => Some(wrapped.to_owned()),
                _ => None,
            },
            erased,
        })
    }
}

/// Opens changes, each with the key of its customer. For a change that cannot be opened now, the result says why.
///
/// # Errors
/// When no source of keys answers.
pub async fn open(
    opener: &Opener,
    changes: Vec<CustomerChange>,
) -> Result<Vec<Result<ReplicaCustomer, Unopened>>, StoreError> {
    let sealed = changes
        .iter()
        .filter_map(CustomerChange::sealed_subject)
        .collect();
    let keys = opener.keys_of(&sealed).await?;
    let now = opener.clock().now().into();
    Ok(changes
        .into_iter()
        .map(|change| open_one(change, &keys, now))
        .collect())
}

/// Opens one change with the key of its customer.
pub(super) fn open_one(
    change: CustomerChange,
    keys: &Keys,
    now: Timestamp,
) -> Result<ReplicaCustomer, Unopened> {
    let subject = change.id.clone();
    change
        .into_customer(keys.of(&subject), now)
        .map_err(|error| Unopened {
            subject,
            reason: error.reason,
        })
}

/// Reads a customer's change. The personal data stays sealed.
///
/// # Errors
/// The part of the message that is missing, cannot be read, or breaks a rule.
pub fn read(message: &Message) -> Result<CustomerChange, Rejection> {
    let event = cloudevents::read(message)?;
    let change: CustomerChange = read_object(event.data.as_bytes())
        .map_err(|error| Rejection::new(format!("the body is not a customer change: {error}")))?;
    tandem_model::change::judge(message, &event, KIND, &change.id, change.revision)?;
    if !CHANGE_TYPES.contains(&change.change_type.as_str()) {
        return Err(Rejection::new(format!(
            "changeType is {:?}; expected one of {}",
            change.change_type,
            CHANGE_TYPES.join(", ")
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
