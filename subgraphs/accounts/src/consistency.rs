//! Read-your-writes on this instance. The system of record shows every write of a client at once. The audit trail shows
//! a write when it is in the log and projected.

use std::sync::Arc;

use futures::future::join_all;
use tandem_assembly::consistency::is_audited;
use tandem_event_path::store::ChangeLog;
use tandem_runtime::{
    clock::Clock,
    consistency::{Kind, Written},
};
use tandem_service::web::consistency::{LONGEST_WAIT, Of, Shows};

/// Waits until the audit trail of customers shows the writes.
#[must_use]
pub fn shows(changes: Arc<dyn ChangeLog>, clock: Clock) -> Shows {
    Arc::new(move |written, of| {
        let (changes, clock) = (Arc::clone(&changes), clock.clone());
        Box::pin(async move {
            if of == Of::State {
                return Vec::new();
            }
            let deadline = clock.instant() + LONGEST_WAIT;
            let looks = written
                .into_iter()
                .filter(|one| one.kind == Kind::Customer)
                .map(|one: Written| {
                    let (changes, clock) = (Arc::clone(&changes), clock.clone());
                    async move {
                        let (id, revision) = (one.id.clone(), one.revision);
                        let is_shown = is_audited(changes, id, revision, deadline, clock).await;
                        (!is_shown).then_some(one)
                    }
                });
            join_all(looks).await.into_iter().flatten().collect()
        })
    })
}
