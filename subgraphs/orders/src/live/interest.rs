//! Which orders a subscriber wants to hear of.

use super::{short_name::in_short, subscribers::Channel};
use crate::domain::{Order, OrderChangeEvent};

/// The ways to give a customer, an order, both or neither.
pub(super) const WAYS: usize = 4;

/// Which orders a subscriber wants to hear of; of all if neither is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Only this customer's.
    pub customer_id: Option<String>,
    /// Only this one.
    pub order_id: Option<String>,
}

impl Interest {
    pub(super) fn channel(&self) -> Channel {
        match (&self.order_id, &self.customer_id) {
            (Some(id), _) => Channel::Order(id.clone()),
            (None, Some(id)) => Channel::Customer(id.clone()),
            (None, None) => Channel::All,
        }
    }

    /// It in 4 bytes, as cursors name it; 0 for all orders.
    pub(super) fn in_short(&self) -> u32 {
        let [customer, order] =
            [&self.customer_id, &self.order_id].map(|id| id.as_deref().unwrap_or_default());
        match self.given() {
            0 => 0,
            _ => in_short(&format!("{customer}\n{order}")),
        }
    }

    /// Which of the two are given, as a number below [`WAYS`]: where they are the same, all who want a change want it by the same ids.
    pub(super) fn given(&self) -> usize {
        usize::from(self.customer_id.is_some()) + 2 * usize::from(self.order_id.is_some())
    }

    /// Whether an order, or a change of one, is wanted.
    pub(super) fn wants(&self, what: &impl OfCustomer) -> bool {
        let is =
            |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        is(&self.order_id, what.order_id()) && is(&self.customer_id, what.customer_id())
    }
}

/// What is of one order of one customer.
pub(super) trait OfCustomer {
    fn order_id(&self) -> &str;
    fn customer_id(&self) -> &str;
}

impl OfCustomer for Order {
    fn order_id(&self) -> &str {
        &self.id
    }
    fn customer_id(&self) -> &str {
        &self.customer_id
    }
}

impl OfCustomer for OrderChangeEvent {
    fn order_id(&self) -> &str {
        &self.id
    }
    fn customer_id(&self) -> &str {
        &self.customer_id
    }
}
