//! The common parts of the feed of orders' changes and its subscriptions.

use std::sync::Arc;

use tandem_event_path::data_keys::Opener;
use tandem_model::{cloudevents, message::Message};
use tandem_runtime::shutdown::Shutdown;

use super::{
    audit_lookup::AuditLookup,
    log::{BACKOFF, Log, waits},
    seen::Seen,
    snapshot::Snapshots,
    subscribers::Subscribers,
};
use crate::{domain::OrderChangeEvent, erasure};

pub(super) const FEED: &str = "orders";

/// The state that the feed shares with its subscriptions. Each of them holds a pointer to it, because there may be ten
/// thousand.
pub(super) struct Common {
    pub(super) log: Arc<dyn Log>,
    pub(super) subscribers: Subscribers<Arc<Seen>>,
    pub(super) audit_lookup: AuditLookup,
    pub(super) snapshots: Snapshots,
    pub(super) opener: Opener,
    pub(super) shutdown: Shutdown,
}

/// The event in a message. `None` if the message has no event that can be read.
pub(super) fn read(message: &Message) -> Option<OrderChangeEvent> {
    // A message that cannot be read is parked by the audit projection.
    let event = cloudevents::read(message).ok()?;
    OrderChangeEvent::read(&event).ok()
}

impl Common {
    /// Opens an event. It retries for as long as no source of keys answers. If the key is missing, the event stays
    /// sealed, and only this change waits for the key. `None` when the service stops.
    pub(super) async fn open(&self, event: OrderChangeEvent) -> Option<OrderChangeEvent> {
        if event.sealed.is_none() {
            return Some(event);
        }
        let mut pauses = BACKOFF.pauses(self.shutdown.clock());
        loop {
            let pause = pauses.next_pause();
            match erasure::open(&self.opener, vec![event.clone()]).await {
                Ok(mut opened) => {
                    let opened = opened.pop()?.inspect_err(|unopened| waits(FEED, unopened));
                    return Some(opened.unwrap_or(event));
                }
                Err(error) => {
                    tracing::warn!(feed = FEED, %error, ?pause, "live updates wait for data keys");
                }
            }
            if !self.shutdown.sleep(pause).await {
                return None;
            }
        }
    }
}
