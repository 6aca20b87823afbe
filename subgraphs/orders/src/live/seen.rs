//! A change of an order, as the feed delivers it to its listeners.

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

/// A first occurrence, or a possible one, as the feed delivers it to its listeners.
pub(super) struct Seen {
    pub(super) position: Position,
    /// The positions of the feed after this change.
    pub(super) positions: Arc<Offsets>,
    pub(super) published_at: Option<DateTime<Utc>>,
    /// The event, opened. It is still sealed if its data key is missing.
    pub(super) event: OrderChangeEvent,
    /// Whether the previous change has not been read.
    pub(super) is_early: bool,
    pub(super) delivery: Arc<Delivery>,
    /// The lookup in the audit trail, if it is not known whether this is a repetition. The change is sent when the
    /// answer is there.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// What is rendered of the change for its listeners.
    pub(super) templates: Arc<Templates>,
    pub(super) order: OnceLock<Arc<Order>>,
    /// The cursors of subscribers that have heard everything up to this change and hold nothing back, indexed by
    /// [`Interest::given`].
    pub(super) cursors: [OnceLock<Arc<str>>; WAYS],
}

impl Seen {
    /// The order after the change. All callers share it.
    pub(super) fn order(&self) -> Arc<Order> {
        let order = || Arc::new(self.event.clone().into_order());
        Arc::clone(self.order.get_or_init(order))
    }

    /// The cursor of subscribers with this kind of filter that are exactly after this change. The first caller makes
    /// it.
    pub(super) fn cursor(&self, interest: &Interest, make: impl FnOnce() -> Arc<str>) -> Arc<str> {
        Arc::clone(self.cursors[interest.given()].get_or_init(make))
    }
}
