//! `CustomerChangeEvent`, version 2: the event of every change. Only this module writes and reads its body.
//!
//! The contract is `schema/events/customer-change-event.v2.json`, generated from the types here. Fields are only ever
//! added: a reader ignores fields that it does not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::{
    event::{CloudEvent, ReceivedEvent},
    json::{JsonError, in_order_of_name, read_object},
    seal::{Key, OpenError, Seals},
    values::Timestamp,
};
use uuid::Uuid;

use super::{
    Address, Asked, Change, ChangeType, Contact, CreditCard, Customer, CustomerId, Name, Person,
};

/// The topic of these events.
pub const TOPIC: &str = "accounts.customer.change";

/// The topic of the customers' wrapped data keys. A tombstone in this topic erases a customer.
pub const KEY_TOPIC: &str = "accounts.customer.key";

/// The CloudEvents `source`.
pub const SOURCE: &str = "/accounts";

/// The CloudEvents `type`.
pub const TYPE: &str = "CustomerChangeEvent";

/// The CloudEvents `dataschema` of version 2. Events of version 1, which cannot be sealed, are read in the same way.
pub const DATA_SCHEMA: &str = "urn:tandem:schema:customer-change-event:v2";

/// The customer's whole state after a change, and what the change was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "CustomerChangeEvent")]
pub struct CustomerChangeEvent {
    /// The customer's id: 1 to 64 of `A-Z a-z 0-9 _ -`. Also the CloudEvents `subject` and the Kafka key.
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub id: CustomerId,
    /// All that is personal (`name`, `contact`, `addresses`, `creditCards`, as a JSON object), sealed with the customer's data
    /// key (AES-256-GCM) for `customer/<id>/<revision>`. In its place those fields may stand here in plain. An `ERASED` event
    /// has neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// What the customer is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// How the customer is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    /// The customer's addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<Address>>,
    /// The customer's cards; a number is readable only with the key of accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credit_cards: Option<Vec<CreditCard>>,
    /// When the first revision was made.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub created_at: Timestamp,
    /// When this revision was made.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub updated_at: Timestamp,
    /// 1 at creation, one more with every change, without a gap.
    #[schemars(range(min = 1))]
    pub revision: i64,
    /// What the change did.
    pub change_type: ChangeType,
    /// When it was made.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub changed_at: Timestamp,
    /// Who asked for it: the token's subject, or `anonymous`, or `legacy-rest`.
    pub changed_by: String,
    /// The parts that differ from the revision before: `name`, `contact`, `addresses`, `creditCards`.
    #[serde(default)]
    pub changed_fields: Vec<String>,
}

/// Why an event cannot be read as a [`CustomerChangeEvent`].
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    /// It is another kind of event.
    #[error("the type is `{0}`, not `{TYPE}`")]
    Type(String),
    /// The body breaks the schema.
    #[error("the body is no {TYPE}: {0}")]
    Body(#[from] JsonError),
    /// Envelope and body name different customers.
    #[error("the subject is `{subject}` but the body's id is `{id}`")]
    Subject {
        /// The subject in the envelope.
        subject: String,
        /// The id in the body.
        id: CustomerId,
    },
    /// The customer is not erased, but the body holds no personal data.
    #[error("the body has neither `sealed` nor `name` and `contact`")]
    Nobody,
    /// `sealed` cannot be opened with the customer's key.
    #[error("`sealed` cannot be read: {0}")]
    Sealed(#[from] OpenError),
    /// The customer's key is missing.
    #[error("{0}")]
    NoKey(String),
    /// The revision is below 1.
    #[error("the revision is {0}, which is below 1")]
    Revision(i64),
}

impl CustomerChangeEvent {
    /// The event of a change, not sealed. For an erased customer it holds no personal data.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        let customer = &change.customer;
        let person = (!customer.is_erased()).then(|| customer.person());
        let (name, contact, addresses, credit_cards) = match person {
            Some(person) => (
                Some(person.name),
                Some(person.contact),
                Some(person.addresses),
                Some(person.credit_cards),
            ),
            None => (None, None, None, None),
        };
        Self {
            id: customer.customer_id().clone(),
            sealed: None,
            name,
            contact,
            addresses,
            credit_cards,
            created_at: customer.created_at(),
            updated_at: customer.updated_at(),
            revision: tandem_model::aggregate::Aggregate::revision(customer),
            change_type: change.kind,
            changed_at: customer.updated_at(),
            changed_by: change.asked.by.clone(),
            changed_fields: change
                .parts
                .iter()
                .map(|part| part.as_str().to_owned())
                .collect(),
        }
    }

    /// The event of a stored state, to be published again, not sealed. `by` and `parts` describe the change that made
    /// the state, as far as they are still known.
    #[must_use]
    pub fn again(customer: &Customer, by: String, parts: Vec<String>) -> Self {
        let kind = match tandem_model::aggregate::Aggregate::revision(customer) {
            _ if customer.is_erased() => ChangeType::Erased,
            1 => ChangeType::Created,
            _ => ChangeType::Updated,
        };
        let change = Change {
            customer: customer.clone(),
            kind,
            parts: Vec::new(),
            asked: Asked {
                by,
                at: customer.updated_at(),
                traceparent: None,
            },
        };
        Self {
            changed_fields: parts,
            ..Self::of(&change)
        }
    }

    /// The same event with the personal data sealed.
    ///
    /// # Errors
    /// When the personal data cannot be written as JSON. No customer causes this.
    pub fn seal(mut self, key: &dyn Seals) -> Result<Self, serde_json::Error> {
        if let (Some(name), Some(contact)) = (self.name.take(), self.contact.take()) {
            let person = Person {
                name,
                contact,
                addresses: self.addresses.take().unwrap_or_default(),
                credit_cards: self.credit_cards.take().unwrap_or_default(),
            };
            let plain = serde_json::to_vec(&person)?;
            self.sealed = Some(key.seal(&plain, &self.place()));
        }
        Ok(self)
    }

    /// The context that the personal data is sealed for. No id contains a `/`, so it is unambiguous.
    fn place(&self) -> String {
        format!("customer/{}/{}", self.id, self.revision)
    }

    /// The customer that this event describes. `key` is what is known of the customer's data key.
    ///
    /// # Errors
    /// When the event cannot be opened, because the key is missing or is a different one.
    pub fn into_customer(mut self, key: Key<'_>) -> Result<Customer, UnreadableEvent> {
        let person = match (&self.sealed, key) {
            (Some(sealed), Key::Here(key, _)) => {
                let plain = key.open(sealed, &self.place())?;
                Some(read_object::<Person>(&plain)?)
            }
            (Some(_), Key::Erased) => None,
            (Some(_), Key::Missing(reason)) => {
                return Err(UnreadableEvent::NoKey(reason.to_owned()));
            }
            (None, _) => match (self.name.take(), self.contact.take()) {
                (Some(name), Some(contact)) => Some(Person {
                    name,
                    contact,
                    addresses: self.addresses.take().unwrap_or_default(),
                    credit_cards: self.credit_cards.take().unwrap_or_default(),
                }),
                _ => None,
            },
        };
        let wrapped = match key {
            Key::Here(_, wrapped) => Some(wrapped.to_owned()),
            Key::Erased | Key::Missing(_) => None,
        };
        let times = (self.created_at, self.updated_at);
        Ok(Customer::restore(
            self.id,
            self.revision,
            times,
            person,
            wrapped,
        ))
    }

    /// Reads the body of an event.
    ///
    /// # Errors
    /// When it is another kind of event, or the body breaks the schema or contradicts the envelope.
    pub fn read(event: &ReceivedEvent) -> Result<Self, UnreadableEvent> {
        if event.kind != TYPE {
            return Err(UnreadableEvent::Type(event.kind.clone()));
        }
        let body: Self = read_object(event.data.as_bytes())?;
        if let Some(subject) = event
            .subject
            .as_deref()
            .filter(|it| *it != body.id.as_str())
        {
            return Err(UnreadableEvent::Subject {
                subject: subject.to_owned(),
                id: body.id,
            });
        }
        if body.revision < 1 {
            return Err(UnreadableEvent::Revision(body.revision));
        }
        let is_plain = body.name.is_some() && body.contact.is_some();
        if body.change_type != ChangeType::Erased && body.sealed.is_none() && !is_plain {
            return Err(UnreadableEvent::Nobody);
        }
        Ok(body)
    }
}

impl CustomerChangeEvent {
    /// Puts the body into its envelope, with this event id.
    ///
    /// # Errors
    /// When the body cannot be written as JSON. No state of a customer causes this.
    pub fn into_cloud_event(
        self,
        id: Uuid,
        traceparent: Option<String>,
    ) -> Result<CloudEvent, serde_json::Error> {
        let body = self;
        Ok(CloudEvent {
            id,
            source: SOURCE.to_owned(),
            kind: TYPE.to_owned(),
            subject: body.id.to_string(),
            time: body.changed_at.into(),
            data_schema: DATA_SCHEMA.to_owned(),
            traceparent,
            data: serde_json::to_string(&body)?,
        })
    }
}

/// The JSON Schema of the body, as committed at `schema/events/customer-change-event.v2.json`.
#[must_use]
pub fn event_json_schema() -> String {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<CustomerChangeEvent>();
    schema.insert("$id".to_owned(), DATA_SCHEMA.into());
    let mut text = format!("{:#}", in_order_of_name(schema.to_value()));
    text.push('\n');
    text
}
