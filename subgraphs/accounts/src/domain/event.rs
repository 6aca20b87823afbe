//! `CustomerChangeEvent`, version 1: what accounts tells of every change. The one place that writes and reads its body.
//!
//! The contract is `schema/events/customer-change-event.v1.json`, made from the types here. Fields are only ever added:
//! a reader ignores what it does not know.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tandem_kit::{event::CloudEvent, graphql::Timestamp};
use uuid::Uuid;

use super::{Address, Change, ChangeType, Contact, CreditCard, Customer, CustomerId, Name};

/// The topic of these events.
pub const TOPIC: &str = "accounts.customer.change";

/// CloudEvents `source`.
pub const SOURCE: &str = "/accounts";

/// CloudEvents `type`.
pub const TYPE: &str = "CustomerChangeEvent";

/// CloudEvents `dataschema` of version 1.
pub const DATA_SCHEMA: &str = "urn:tandem:schema:customer-change-event:v1";

/// The customer's whole state after a change, and what the change was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "CustomerChangeEvent")]
pub struct CustomerChangeEvent {
    /// The customer's id: 1 to 64 of `A-Z a-z 0-9 _ -`. Also the CloudEvents `subject` and the Kafka key.
    #[schemars(with = "String", regex(pattern = r"^[A-Za-z0-9_-]{1,64}$"))]
    pub id: CustomerId,
    /// What the customer is called.
    pub name: Name,
    /// How the customer is reached.
    pub contact: Contact,
    /// The customer's addresses.
    #[serde(default)]
    pub addresses: Vec<Address>,
    /// The customer's cards; a number is readable only with the key of accounts.
    #[serde(default)]
    pub credit_cards: Vec<CreditCard>,
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

/// Why an event is not taken as a [`CustomerChangeEvent`].
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    /// Another kind of event.
    #[error("the type is `{0}`, not `{TYPE}`")]
    Type(String),
    /// The body does not keep the schema.
    #[error("the body is no {TYPE}: {0}")]
    Body(#[from] serde_json::Error),
    /// Envelope and body tell of different customers.
    #[error("the subject is `{subject}` but the body's id is `{id}`")]
    Subject {
        /// The envelope's.
        subject: String,
        /// The body's.
        id: CustomerId,
    },
    /// There is no such revision.
    #[error("the revision is {0}, which is below 1")]
    Revision(i64),
}

impl CustomerChangeEvent {
    /// Tells of a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        let customer = &change.customer;
        Self {
            id: customer.customer_id().clone(),
            name: customer.name().clone(),
            contact: customer.contact().clone(),
            addresses: customer.addresses().to_vec(),
            credit_cards: customer.credit_cards().to_vec(),
            created_at: customer.created_at(),
            updated_at: customer.updated_at(),
            revision: tandem_kit::aggregate::Aggregate::revision(customer),
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

    /// The customer as this event tells of it.
    #[must_use]
    pub fn into_customer(self) -> Customer {
        Customer::restore(self)
    }

    /// Reads the body of an event.
    ///
    /// # Errors
    /// When it is another kind of event, or its body breaks the schema or contradicts the envelope.
    pub fn read(event: &CloudEvent) -> Result<Self, UnreadableEvent> {
        if event.kind != TYPE {
            return Err(UnreadableEvent::Type(event.kind.clone()));
        }
        let body: Self = serde_json::from_str(&event.data)?;
        if body.id.as_str() != event.subject {
            return Err(UnreadableEvent::Subject {
                subject: event.subject.clone(),
                id: body.id,
            });
        }
        if body.revision < 1 {
            return Err(UnreadableEvent::Revision(body.revision));
        }
        Ok(body)
    }
}

/// The event that tells of a change, with a new id.
///
/// # Errors
/// When the body cannot be written as JSON, which no state of a customer brings about.
pub fn cloud_event(change: &Change) -> Result<CloudEvent, serde_json::Error> {
    let body = CustomerChangeEvent::of(change);
    Ok(CloudEvent {
        id: Uuid::now_v7(),
        source: SOURCE.to_owned(),
        kind: TYPE.to_owned(),
        subject: body.id.to_string(),
        time: body.changed_at.into(),
        data_schema: DATA_SCHEMA.to_owned(),
        traceparent: change.asked.traceparent.clone(),
        data: serde_json::to_string(&body)?,
    })
}

/// The JSON Schema of the body, as committed at `schema/events/customer-change-event.v1.json`.
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

/// The same with the members of every object in order of name, whichever order the build's serde_json keeps.
fn in_order_of_name(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| (name, in_order_of_name(value)))
            .collect::<BTreeMap<_, _>>()
            .into_iter()
            .collect(),
        Value::Array(items) => items.into_iter().map(in_order_of_name).collect(),
        plain => plain,
    }
}
