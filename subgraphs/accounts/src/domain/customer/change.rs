//! A change of a customer: the new state, and what its event reports.

use serde::{Deserialize, Serialize};
use tandem_model::values::Timestamp;

use super::Customer;

/// The caller of a change, its time and its trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The subject of the token, `anonymous`, or `legacy-rest`.
    pub by: String,
    /// The present time.
    pub at: Timestamp,
    /// The W3C `traceparent` of the request, if there is one.
    pub traceparent: Option<String>,
}

/// A change that a command makes: the new state and what its event reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The state after the change.
    pub customer: Customer,
    /// Whether the change created, updated or erased the customer.
    pub kind: ChangeType,
    /// The parts that differ from the previous revision.
    pub parts: Vec<Part>,
    /// The caller. The time of the change is the customer's `updated_at`.
    pub asked: Asked,
}

/// What a change did to the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ChangeType {
    /// The first revision.
    Created,
    /// Any later one.
    Updated,
    /// The last one: the person's data is gone.
    Erased,
}

impl ChangeType {
    /// The name in events and in the audit trail.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "CREATED",
            Self::Updated => "UPDATED",
            Self::Erased => "ERASED",
        }
    }
}

/// A top-level part of a customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The name.
    Name,
    /// Phone numbers and e-mail address.
    Contact,
    /// The addresses.
    Addresses,
    /// The cards.
    CreditCards,
}

impl Part {
    /// The name of the part in the API and in events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Contact => "contact",
            Self::Addresses => "addresses",
            Self::CreditCards => "creditCards",
        }
    }
}
