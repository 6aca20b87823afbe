//! The filter of a subscriber: which orders it follows.

use super::{short_name::in_short, subscribers::Channel};
use crate::domain::{Order, OrderChangeEvent};

/// The number of combinations of the two ids of a filter: a customer, an order, both or neither.
pub(super) const WAYS: usize = 4;

/// Which orders a subscriber follows. If neither id is given, it follows all orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Only the orders of this customer.
    pub customer_id: Option<String>,
    /// Only this order.
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

    /// The short name of the filter, in 4 bytes, as cursors contain it. 0 for all orders.
    pub(super) fn in_short(&self) -> u32 {
        let [customer, order] =
            [&self.customer_id, &self.order_id].map(|id| id.as_deref().unwrap_or_default());
        match self.given() {
            0 => 0,
            _ => in_short(&format!("{customer}\n{order}")),
        }
    }

    /// Which of the two ids are given, as a number below [`WAYS`]. Among the subscribers that want a given change,
    /// those with the same number have the same filter.
    pub(super) fn given(&self) -> usize {
        usize::from(self.customer_id.is_some()) + 2 * usize::from(self.order_id.is_some())
    }

    /// Whether the filter includes an order, or a change of an order.
    pub(super) fn wants(&self, what: &impl OfCustomer) -> bool {
        let is =
            |wanted: &Option<String>, id: &str| wanted.as_deref().is_none_or(|wanted| wanted == id);
        is(&self.order_id, what.order_id()) && is(&self.customer_id, what.customer_id())
    }
}

/// Something that belongs to one order of one customer.
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
