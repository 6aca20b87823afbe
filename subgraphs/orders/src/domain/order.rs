//! The order aggregate: what it is made of and the commands that change it.

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

/// At most so many characters in the reason of a cancellation.
pub const LONGEST_REASON: usize = 1_000;

/// An order of one customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    /// Its id: a version 7 UUID, so that ids are in order of placing.
    pub id: String,
    /// Whose it is.
    pub customer_id: String,
    /// What is ordered: 1 to 100 items.
    pub items: Vec<OrderItem>,
    /// What all of it costs.
    #[serde(with = "tandem_model::values::decimal")]
    pub total: Decimal,
    /// Where it is on its way.
    pub status: OrderStatus,
    /// Where it goes, as the customer's address was when it was placed.
    #[serde(default)]
    pub ship_to: Option<Address>,
    /// When it was placed.
    pub placed_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// 1 when placed, one more with every change.
    pub revision: i64,
    /// Why it was cancelled, if it was and somebody said why.
    #[serde(default)]
    pub cancellation_reason: Option<String>,
    /// The customer's data key, wrapped: what is personal is sealed with it in events. None if the customer has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_key: Option<String>,
    /// The customer has been erased: nothing personal is left here, and nothing is taken any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub customer_erased: bool,
}

/// What it takes to place an order.
#[derive(Clone, Debug, PartialEq)]
pub struct Placement {
    /// Whose order.
    pub customer_id: String,
    /// What is ordered.
    pub items: Vec<OrderItem>,
    /// The customer's address that it goes to.
    pub ship_to: Option<Address>,
}

impl Order {
    /// Whether a text can be the id of an order: a UUID in lower case with hyphens.
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        Uuid::try_parse(text).is_ok_and(|id| id.hyphenated().to_string() == text)
    }

    /// Places an order: revision 1.
    ///
    /// # Errors
    /// [`OrderError::Invalid`] that names the value that breaks a rule.
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

    /// Takes the one step forward that the present state allows.
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
            // What is said of somebody who was erased is not kept either.
            cancellation_reason: reason.filter(|_| !self.customer_erased),
            ..self.changed(OrderStatus::Cancelled, now)
        })
    }

    /// The same order without anything personal. No change of the order: its revision stays.
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
