//! A change of an order as the feed hands it to its listeners.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, Utc};
use tandem_event_path::log::Offsets;
use tandem_model::message::Position;
use tandem_service::graphql::written::Templates;

use super::{
    audit_lookup::Lookup,
    delivery::Delivery,
    interest::{Interest, WAYS},
};
use crate::domain::{Order, OrderChangeEvent};

/// A first occurrence, or what may be one, as the feed hands it to its listeners.
pub(super) struct Seen {
    pub(super) position: Position,
    /// How far the feed had come with it.
    pub(super) positions: Arc<Offsets>,
    pub(super) published_at: Option<DateTime<Utc>>,
    /// Opened; still sealed if its data key is not there.
    pub(super) event: OrderChangeEvent,
    /// Whether the change before it has not been read.
    pub(super) is_early: bool,
    pub(super) delivery: Arc<Delivery>,
    /// What the audit trail is to say of it, where it is not known whether it was in the log before: it is told when that is known.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// What is written of it for its listeners.
    pub(super) templates: Arc<Templates>,
    pub(super) order: OnceLock<Arc<Order>>,
    /// The cursors of all who have heard everything up to it, and have nothing else to tell, by [`Interest::given`].
    pub(super) cursors: [OnceLock<Arc<str>>; WAYS],
}

impl Seen {
    /// The order as it was after the change; the same for all who ask.
    pub(super) fn order(&self) -> Arc<Order> {
        let order = || Arc::new(self.event.clone().into_order());
        Arc::clone(self.order.get_or_init(order))
    }

    /// The cursor of all who are just behind it by such an interest; whoever comes first makes it.
    pub(super) fn cursor(&self, interest: &Interest, make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.cursors[interest.given()].get_or_init(make))
    }
}
