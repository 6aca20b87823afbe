//! Waits until the audit trail shows what a client wrote.

use std::{sync::Arc, time::Duration};

use tandem_event_path::{
    fault::{self, Fault},
    store::{ChangeLog, ChangesRequest},
};
use tandem_runtime::{backoff::Backoff, clock::Clock};
use tokio::time::Instant;

/// The pauses between two reads.
const LOOKS: Backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));

/// Waits until the trail has this revision of an aggregate, or a later one. Returns whether it has by the deadline. A
/// store that does not answer counts as not having it.
pub async fn is_audited(
    changes: Arc<dyn ChangeLog>,
    subject: String,
    revision: i64,
    deadline: Instant,
    clock: Clock,
) -> bool {
    let request = [ChangesRequest {
        subject,
        after_revision: revision - 1,
        limit: 1,
    }];
    let mut pauses = LOOKS.pauses(&clock);
    if fault::is_on(Fault::AuditNotAwaited) {
        return true;
    }
    loop {
        match changes.changes(&request).await {
            Ok(found) if found.iter().any(|records| !records.is_empty()) => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "a reader of its own writes waits for the audit trail")
            }
        }
        if clock.instant() >= deadline {
            return false;
        }
        clock.sleep(pauses.next_pause()).await;
    }
}
