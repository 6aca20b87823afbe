//! Read-your-writes on this instance. It shows customers as the replica has them, and all orders. The audit trail shows
//! a change of an order when it is in the log and projected.

use std::sync::Arc;

use futures::future::join_all;
use tandem_assembly::consistency::is_audited;
use tandem_event_path::store::ChangeLog;
use tandem_runtime::{
    clock::Clock,
    consistency::{Kind, Written},
};
use tandem_service::web::consistency::LONGEST_WAIT;

pub use tandem_service::web::consistency::{Of, Shows};

use crate::replica::{Replica, Waited};

/// Waits until the replica, or the audit trail of orders, shows the writes.
#[must_use]
pub fn shows(replica: Replica, changes: Arc<dyn ChangeLog>, clock: Clock) -> Shows {
    Arc::new(move |written, of| {
        let (replica, changes, clock) = (replica.clone(), Arc::clone(&changes), clock.clone());
        Box::pin(async move {
            let deadline = clock.instant() + LONGEST_WAIT;
            let looks = written.into_iter().map(|one: Written| {
                let (replica, changes, clock) =
                    (replica.clone(), Arc::clone(&changes), clock.clone());
                async move {
                    let is_shown = match one.kind {
                        Kind::Customer => is_replicated(&replica, &one).await,
                        Kind::Order if of == Of::State => true,
                        Kind::Order => {
                            let (id, revision) = (one.id.clone(), one.revision);
                            is_audited(changes, id, revision, deadline, clock).await
                        }
                    };
                    (!is_shown).then_some(one)
                }
            });
            join_all(looks).await.into_iter().flatten().collect()
        })
    })
}

async fn is_replicated(replica: &Replica, one: &Written) -> bool {
    let waited = replica.wait_for_revision(&one.id, one.revision, LONGEST_WAIT);
    match waited.await {
        Ok(waited) => matches!(waited, Waited::Arrived(_)),
        Err(error) => {
            tracing::warn!(%error, "a reader of its own writes waits for the replica");
            false
        }
    }
}
