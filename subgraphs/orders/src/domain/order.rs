//! The order aggregate: its state and the commands that change it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tandem_model::{
    aggregate::Aggregate,
    values::{Decimal, Timestamp},
};
use uuid::Uuid;

use super::{
    address::Address,
    error::OrderError,
    item::{self, OrderItem},
    status::OrderStatus,
    text,
};

/// The maximum number of characters of a cancellation reason.
pub const LONGEST_REASON: usize = 1_000;

/// An order of one customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// The id: a version 7 UUID, so that ids sort in the order of placing.
    pub id: String,
    /// The customer of the order.
    pub customer_id: String,
    /// The items: 1 to 100.
    pub items: Vec<OrderItem>,
    /// The total price of all items.
    #[serde(with = "tandem_model::values::decimal")]
    pub total: Decimal,
    /// The status of the order.
    pub status: OrderStatus,
    /// The shipping address: the customer's address as it was when the order was placed.
    #[serde(default)]
    pub ship_to: Option<Address>,
    /// The time of placing.
    pub placed_at: Timestamp,
    /// The time of the last change.
    pub updated_at: Timestamp,
    /// The revision: 1 when placed, one more with every change.
    pub revision: i64,
    /// The reason of the cancellation, if one was given.
    #[serde(default)]
    pub cancellation_reason: Option<String>,
    /// The customer's wrapped data key. It seals the personal data of the order in events. `None` if the customer has
    /// no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// Whether the customer has been erased. Then the order holds no personal data and accepts none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub customer_erased: bool,
}

/// The data of an order to place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// The customer of the order.
    pub customer_id: String,
    /// The items.
    pub items: Vec<OrderItem>,
    /// The customer's address to ship to.
    pub ship_to: Option<Address>,
}

impl Order {
    /// Whether a text can be the id of an order: a UUID in lower case with hyphens.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == text)
    }

    /// Places an order, which gets revision 1.
    ///
    /// # Errors
    /// [`OrderError::Invalid`] with the value that breaks a rule.
    pub fn place(id: String, placement: Placement, now: DateTime<Utc>) -> Result<Self, OrderError> {
        item::check(&placement.items)?;
        let now = Timestamp::from(now);
        Ok(Self {
            id,
            customer_id: placement.customer_id,
            total: item::total(&placement.items)?,
            items: placement.items,
            status: OrderStatus::Placed,
            ship_to: placement.ship_to,
            placed_at: now,
            updated_at: now,
            revision: 1,
            cancellation_reason: None,
            data_key: None,
            customer_erased: false,
        })
    }

    /// Advances the order by the only step that its present status allows.
    ///
    /// # Errors
    /// [`OrderError::RevisionConflict`], or [`OrderError::InvalidTransition`] for any other step.
    pub fn advance(
        &self,
        to: OrderStatus,
        expected_revision: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<Self, OrderError> {
        self.expect_revision(expected_revision)?;
        if self.status.next() != Some(to) {
            return Err(OrderError::InvalidTransition {
                from: self.status,
                to,
            });
        }
        Ok(self.changed(to, now))
    }

    /// Cancels the order.
    ///
    /// # Errors
    /// [`OrderError::RevisionConflict`], [`OrderError::InvalidTransition`] once it is shipped or cancelled, or
    /// [`OrderError::Invalid`] for a reason of more than [`LONGEST_REASON`] characters.
    pub fn cancel(
        &self,
        reason: Option<String>,
        expected_revision: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<Self, OrderError> {
        if let Some(reason) = &reason {
            text::bounded("reason", reason, LONGEST_REASON)?;
        }
        self.expect_revision(expected_revision)?;
        if !self.status.can_be_cancelled() {
            return Err(OrderError::InvalidTransition {
                from: self.status,
                to: OrderStatus::Cancelled,
            });
        }
        Ok(Self {
            // A cancellation reason may contain personal data, so it is dropped if the customer was erased.
            cancellation_reason: reason.filter(|_| !self.customer_erased),
            ..self.changed(OrderStatus::Cancelled, now)
        })
    }

    /// The same order without personal data. This is no change of the order, so the revision stays the same.
    #[must_use]
    pub fn without_person(self) -> Self {
        Self {
            ship_to: None,
            cancellation_reason: None,
            data_key: None,
            customer_erased: true,
            ..self
        }
    }

    fn expect_revision(&self, expected: Option<i64>) -> Result<(), OrderError> {
        match expected {
            Some(expected) if expected != self.revision => Err(OrderError::RevisionConflict {
                expected,
                actual: self.revision,
            }),
            _ => Ok(()),
        }
    }

    fn changed(&self, status: OrderStatus, now: DateTime<Utc>) -> Self {
        Self {
            status,
            revision: self.revision + 1,
            // A clock that was set back must not make a change older than the one before it.
            updated_at: Timestamp::from(now).max(self.updated_at),
            ..self.clone()
        }
    }
}

impl Aggregate for Order {
    const NAME: &'static str = "order";
    const COLLECTION: &'static str = "order.orders";
    const INDEXES: &'static [&'static [&'static str]] =
        &[&["customerId"], &["customerId", "status"], &["status"]];

    fn id(&self) -> &str {
        &self.id
    }

    fn revision(&self) -> i64 {
        self.revision
    }

    fn field(&self, name: &str) -> Option<String> {
        match name {
            "customerId" => Some(self.customer_id.clone()),
            "status" => Some(self.status.name().to_owned()),
            _ => None,
        }
    }
}
