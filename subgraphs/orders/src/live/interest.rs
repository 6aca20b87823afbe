//! Which orders a subscriber wants to hear of.

use super::subscribers::Channel;
use crate::domain::{Order, OrderChangeEvent};

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
