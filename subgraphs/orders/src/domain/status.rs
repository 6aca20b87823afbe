//! The status of an order, and the steps that each status allows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an order is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// The customer has asked for it.
    Placed,
    /// It will be delivered.
    Confirmed,
    /// It is on its way; too late to cancel.
    Shipped,
    /// It has arrived.
    Delivered,
    /// It will not be delivered.
    Cancelled,
}

impl OrderStatus {
    /// The next status on the way to delivery, if there is one.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Placed => Some(Self::Confirmed),
            Self::Confirmed => Some(Self::Shipped),
            Self::Shipped => Some(Self::Delivered),
            Self::Delivered | Self::Cancelled => None,
        }
    }

    /// Whether an order with this status can be cancelled. It can be until it is shipped.
    #[must_use]
    pub fn can_be_cancelled(self) -> bool {
        matches!(self, Self::Placed | Self::Confirmed)
    }

    /// The name in the API, in events and in the store.
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
}

impl std::fmt::Display for OrderStatus {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}
