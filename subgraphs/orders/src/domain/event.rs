//! `OrderChangeEvent`: the event that orders publishes for each change of an order.
//!
//! Its JSON Schema is committed as `schema/events/order-change-event.v1.json`. Within version 1, fields are only added:
//! readers ignore fields that they do not know.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tandem_model::{
    event::{CloudEvent, ReceivedEvent},
    json::{JsonError, read_object},
    seal::{Key, Seals},
    values::{Decimal, Timestamp},
};
use uuid::Uuid;

use super::{address::Address, item::OrderItem, order::Order, status::OrderStatus};

/// The topic of order events.
pub const TOPIC: &str = "orders.order.change";
/// The CloudEvents `source`.
pub const SOURCE: &str = "/orders";
/// The CloudEvents `type`.
pub const KIND: &str = "OrderChangeEvent";
/// The CloudEvents `dataschema`.
pub const DATA_SCHEMA: &str = "urn:tandem:schema:order-change-event:v1";

/// Takes the place of a sealed text whose key has been destroyed.
const ERASED: &str = "v1.erased";

/// What happened to an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeType {
    /// It was placed.
    Placed,
    /// It was confirmed.
    Confirmed,
    /// It was shipped.
    Shipped,
    /// It was delivered.
    Delivered,
    /// It was cancelled.
    Cancelled,
}

impl ChangeType {
    /// The name in the API, in events and in the audit trail.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "PLACED",
            Self::Confirmed => "CONFIRMED",
            Self::Shipped => "SHIPPED",
            Self::Delivered => "DELIVERED",
            Self::Cancelled => "CANCELLED",
        }
    }

    /// The change with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::Placed,
            Self::Confirmed,
            Self::Shipped,
            Self::Delivered,
            Self::Cancelled,
        ]
        .into_iter()
        .find(|change| change.name() == name)
    }
}

impl From<OrderStatus> for ChangeType {
    fn from(status: OrderStatus) -> Self {
        match status {
            OrderStatus::Placed => Self::Placed,
            OrderStatus::Confirmed => Self::Confirmed,
            OrderStatus::Shipped => Self::Shipped,
            OrderStatus::Delivered => Self::Delivered,
            OrderStatus::Cancelled => Self::Cancelled,
        }
    }
}

/// The body of an order event: the order's whole state after the change, and what the change was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderChangeEvent {
    /// The order's id.
    pub id: String,
    /// Whose order it is.
    pub customer_id: String,
    /// What is ordered.
    pub items: Vec<OrderItem>,
    /// What all of it costs: an exact decimal number.
    #[serde(with = "tandem_model::values::decimal")]
    #[schemars(with = "String", regex(pattern = r"^-?[0-9]+(\.[0-9]+)?$"))]
    pub total: Decimal,
    /// Where it is on its way.
    pub status: OrderStatus,
    /// What is personal (`shipTo` and `reason`, as a JSON object), sealed with the customer's data key (AES-256-GCM) for
    /// `order/<id>/<revision>`; the two fields are then null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<String>,
    /// Where it goes.
    #[serde(default)]
    pub ship_to: Option<Address>,
    /// When it was placed.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub placed_at: Timestamp,
    /// The revision that this change made: 1 when placed, one more with every change.
    #[schemars(range(min = 1))]
    pub revision: i64,
    /// What happened.
    pub change_type: ChangeType,
    /// When it happened.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub changed_at: Timestamp,
    /// Who asked for it.
    pub changed_by: String,
    /// Why, if somebody said so.
    #[serde(default)]
    pub reason: Option<String>,
    /// The parts that differ from the revision before; empty in events from before there was this field.
    #[serde(default)]
    pub changed_fields: Vec<String>,
    /// The result of opening the seal. It is not part of the event's JSON.
    #[serde(skip)]
    #[schemars(skip)]
    pub seal: Seal,
}

/// What opening an event has shown about its customer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seal {
    /// Nothing is sealed, or the event has not been opened yet.
    #[default]
    None,
    /// The event was opened with this wrapped key.
    Opened(String),
    /// The customer is proven to be erased.
    Erased,
}

/// The personal data of an order, in the form in which it is sealed.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Personal {
    #[serde(default)]
    ship_to: Option<Address>,
    #[serde(default)]
    reason: Option<String>,
}

fn changed_fields(order: &Order) -> Vec<String> {
    let parts: &[&str] = match order.cancellation_reason {
        _ if order.revision == 1 => &["items", "shipTo", "status", "total"],
        Some(_) => &["cancellationReason", "status"],
        None => &["status"],
    };
    parts.iter().map(|&part| part.to_owned()).collect()
}

/// Why an order event cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableEvent {
    /// The envelope is not the one of an order event.
    #[error("ce_type is {0}; expected {KIND}")]
    OtherKind(String),
    /// The body breaks the schema.
    #[error("the body is not an order change: {0}")]
    Body(#[from] JsonError),
    /// The body contradicts the envelope or a rule.
    #[error("the body breaks a rule: {0}")]
    Rule(String),
}

impl OrderChangeEvent {
    /// The event of the order's newest change.
    #[must_use]
    pub fn of(order: &Order, changed_by: &str) -> Self {
        Self {
            id: order.id.clone(),
            customer_id: order.customer_id.clone(),
            items: order.items.clone(),
            total: order.total,
            status: order.status,
            sealed: None,
            ship_to: order.ship_to.clone(),
            placed_at: order.placed_at,
            revision: order.revision,
            change_type: order.status.into(),
            changed_at: order.updated_at,
            changed_by: changed_by.to_owned(),
            changed_fields: changed_fields(order),
            reason: order.cancellation_reason.clone(),
            seal: Seal::None,
        }
    }

    fn place(&self) -> String {
        format!("order/{}/{}", self.id, self.revision)
    }

    /// The same event with the personal data sealed.
    ///
    /// # Errors
    /// When the personal data cannot be written as JSON. No value of it causes this.
    pub fn seal(mut self, key: &dyn Seals) -> Result<Self, serde_json::Error> {
        let personal = Personal {
            ship_to: self.ship_to.take(),
            reason: self.reason.take(),
        };
        let plain = serde_json::to_vec(&personal)?;
        self.sealed = Some(key.seal(&plain, &self.place()));
        Ok(self)
    }

    /// The same event, marked as sealed with a destroyed key. An order whose customer was erased has no personal data
    /// left to seal.
    #[must_use]
    pub fn of_an_erased(mut self) -> Self {
        self.sealed = Some(ERASED.to_owned());
        self
    }

    /// The same event with the personal data opened. `key` is what is known of the customer's data key. For an erased
    /// customer no personal data is left.
    ///
    /// # Errors
    /// When the event cannot be opened, because the key is missing or is a different one.
    pub fn open(mut self, key: Key<'_>) -> Result<Self, UnreadableEvent> {
        let Some(sealed) = self.sealed.take() else {
            return Ok(self);
        };
        match key {
            Key::Erased => self.seal = Seal::Erased,
            Key::Missing(reason) => return Err(UnreadableEvent::Rule(reason.to_owned())),
            Key::Here(key, wrapped) => {
                let plain = key
                    .open(&sealed, &self.place())
                    .map_err(|error| UnreadableEvent::Rule(format!("sealed: {error}")))?;
                let personal: Personal = read_object(&plain)?;
                self.ship_to = personal.ship_to;
                self.reason = personal.reason;
                self.seal = Seal::Opened(wrapped.to_owned());
            }
        }
        Ok(self)
    }

    /// The order after this change.
    #[must_use]
    pub fn into_order(self) -> Order {
        Order {
            id: self.id,
            customer_id: self.customer_id,
            items: self.items,
            total: self.total,
            status: self.status,
            ship_to: self.ship_to,
            placed_at: self.placed_at,
            updated_at: self.changed_at,
            revision: self.revision,
            cancellation_reason: self.reason,
            customer_erased: self.seal == Seal::Erased,
            data_key: match self.seal {
                Seal::Opened(wrapped) => Some(wrapped),
                Seal::None | Seal::Erased => None,
            },
        }
    }

    /// Puts the event into its envelope, with this event id.
    ///
    /// # Errors
    /// When the body cannot be written as JSON. No value of it causes this.
    pub fn into_cloud_event(
        self,
        id: Uuid,
        traceparent: Option<String>,
    ) -> Result<CloudEvent, serde_json::Error> {
        Ok(CloudEvent {
            id,
            source: SOURCE.to_owned(),
            kind: KIND.to_owned(),
            time: self.changed_at.into(),
            data_schema: DATA_SCHEMA.to_owned(),
            traceparent,
            data: serde_json::to_string(&self)?,
            subject: self.id,
        })
    }

    /// Reads an event from its envelope. Fields that this version does not know are ignored.
    ///
    /// # Errors
    /// When it is another kind of event, or breaks the schema or a rule.
    pub fn read(event: &ReceivedEvent) -> Result<Self, UnreadableEvent> {
        if event.kind != KIND {
            return Err(UnreadableEvent::OtherKind(event.kind.clone()));
        }
        let read: Self = read_object(event.data.as_bytes())?;
        if let Some(subject) = event.subject.as_deref().filter(|it| *it != read.id) {
            return Err(UnreadableEvent::Rule(format!(
                "id is {}, but ce_subject is {subject}",
                read.id
            )));
        }
        if read.revision < 1 {
            return Err(UnreadableEvent::Rule(format!(
                "revision is {}; expected 1 or more",
                read.revision
            )));
        }
        Ok(read)
    }

    /// The JSON Schema of the body, as it is committed.
    ///
    /// # Errors
    /// When the schema cannot be written as JSON. No schema causes this.
    pub fn json_schema() -> Result<String, serde_json::Error> {
        let mut schema = schemars::schema_for!(OrderChangeEvent);
        schema.insert("$id".to_owned(), DATA_SCHEMA.into());
        serde_json::to_string_pretty(&schema).map(|text| text + "\n")
    }
}
