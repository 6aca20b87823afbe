//! What the feed of orders' changes and all its subscriptions have in common.

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

/// What the feed and all its subscriptions have in common. Each of them has a pointer to it: there may be ten thousand.
pub(super) struct Common {
    pub(super) log: Arc<dyn Log>,
    pub(super) subscribers: Subscribers<Arc<Seen>>,
    pub(super) audit_lookup: AuditLookup,
    pub(super) snapshots: Snapshots,
    pub(super) opener: Opener,
    pub(super) shutdown: Shutdown,
}

/// The event that a message carries; `None` where it carries none that can be read.
pub(super) fn read(message: &Message) -> Option<OrderChangeEvent> {
    // What cannot be read is the audit projection's to set aside.
    let event = cloudevents::read(message).ok()?;
    OrderChangeEvent::read(&event).ok()
}

impl Common {
    /// Opens an event, however long nobody can be asked for its key. It stays sealed when the key is not there: the change waits, and
    /// nobody else with it. `None` when the service stops.
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
