//! Restores a log from the store. It publishes again what the store holds and the log lacks, so that a lost topic can
//! be repaired.
//!
//! It publishes the newest state of each aggregate with its revision. The audit trail may still have the lost event.
//! Then the restored event gets the id, the author and the time of the lost one. The extension attribute
//! `tandemrestored` marks a restored event.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use futures::future::try_join_all;
pub use tandem_model::cloudevents::RESTORED;
use tandem_model::{aggregate::Aggregate, cloudevents, event::CloudEvent};
use tandem_runtime::shutdown::Shutdown;

use crate::{
    fault::{self, Fault},
    log::{Log, PublishError, Record},
    rebuild::{Lacking, Order, Progress, RebuildError, Target},
    store::{AggregateStore, ChangeLog, ChangeRecord, ChangesRequest, PublishedRow, StoreError},
};

/// Aggregates that are restored together.
const SOME: usize = 500;

/// Makes the event that describes a stored state.
pub trait Reencodes<A>: Send + Sync + 'static {
    /// Makes the event. `seen` is what the audit trail knows about the change that made this revision.
    ///
    /// # Errors
    /// Why the event cannot be made, as a sentence.
    fn reencode(&self, state: &A, seen: Option<&ChangeRecord>) -> Result<CloudEvent, String>;
}

/// Why the log was not restored, or not completely. A restore can be started again at any time.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// What the log lacks could not be determined.
    #[error(transparent)]
    Look(#[from] RebuildError),
    /// The store is unavailable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event cannot be made.
    #[error("{id} cannot be told: {reason}")]
    Untold {
        /// The id of the aggregate.
        id: String,
        /// The reason.
        reason: String,
    },
    /// Kafka does not take an event.
    #[error("Kafka is away: {0}")]
    Log(#[from] PublishError),
}

/// Restores a service's own log, for any kind of aggregate.
#[async_trait]
pub trait RestoresLog: Send + Sync + 'static {
    /// Publishes what is stored and missing in the log. Calls `tell` with the progress of the search. Returns the
    /// number of events that were written.
    ///
    /// # Errors
    /// See [`RestoreError`].
    async fn restore(
        &self,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<u64, RestoreError>;
}

/// Restores the log of these aggregates.
pub struct LogRestore<A, T> {
    store: Arc<dyn AggregateStore<A>>,
    changes: Arc<dyn ChangeLog>,
    target: Arc<dyn Target>,
    reencodes: T,
    log: Arc<dyn Log>,
}

impl<A: Aggregate, T: Reencodes<A>> LogRestore<A, T> {
    /// Restores the log that `target` is rebuilt from. The aggregates come from `store`, and what is known of lost
    /// events from the audit trail in `changes`.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<A>>,
        changes: Arc<dyn ChangeLog>,
        target: Arc<dyn Target>,
        reencodes: T,
        log: Arc<dyn Log>,
    ) -> Self {
        Self {
            store,
            changes,
            target,
            reencodes,
            log,
        }
    }

    async fn publish_some(&self, ids: &[String]) -> Result<u64, RestoreError> {
        let stored = self.store.get_many(ids).await?;
        // The relay publishes pending events, so aggregates with pending events are skipped.
        let stored: Vec<A> = stored
            .into_iter()
            .flatten()
            .filter(|stored| stored.pending.is_empty())
            .map(|stored| stored.state)
            .collect();
        self.publish_states(&stored).await
    }

    /// Publishes these states again. Returns the number of events that were written.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub async fn publish_states(&self, states: &[A]) -> Result<u64, RestoreError> {
        let requests: Vec<ChangesRequest> = states
            .iter()
            .map(|state| ChangesRequest {
                subject: state.id().to_owned(),
                after_revision: state.revision() - 1,
                limit: 1,
            })
            .collect();
        let seen = self.changes.changes(&requests).await?;
        let mut events = Vec::with_capacity(states.len());
        for (state, seen) in states.iter().zip(seen) {
            let seen = seen
                .first()
                .filter(|seen| seen.revision == state.revision());
            let event = self.reencodes.reencode(state, seen);
            events.push(event.map_err(|reason| RestoreError::Untold {
                id: state.id().to_owned(),
                reason,
            })?);
        }
        let sending = states.iter().zip(&events).map(|(state, event)| {
            let mut headers = cloudevents::headers(event);
            headers.push((RESTORED, Cow::Borrowed(b"true".as_slice())));
            self.log.publish(Record {
                headers,
                ..Record::new(self.target.log(), state.id(), Some(event.data.as_bytes()))
            })
        });
        let sent = try_join_all(sending).await?;
        Ok(sent.len() as u64)
    }
}

#[async_trait]
impl<A: Aggregate, T: Reencodes<A>> RestoresLog for LogRestore<A, T> {
    async fn restore(
        &self,
        shutdown: &Shutdown,
        tell: &mut (dyn FnMut(Progress) + Send + Sync),
    ) -> Result<u64, RestoreError> {
        let order = Order {
            looks: true,
            distrusts: true,
            restores: true,
            ..Order::default()
        };
        let outcome = Arc::clone(&self.target)
            .rebuild(&self.log, order, shutdown, tell)
            .await?;
        let ids: Vec<String> = outcome
            .lacking
            .into_iter()
            .filter_map(|lacking| match lacking {
                Lacking::Ahead(_) if fault::is_on(Fault::RestoredByHalf) => None,
                Lacking::Unknown(PublishedRow { id, .. })
                | Lacking::Ahead(PublishedRow { id, .. }) => Some(id),
                Lacking::Differing(_) => None,
            })
            .collect();
        let mut written = 0;
        for some in ids.chunks(SOME) {
            if shutdown.is_requested() {
                return Err(RebuildError::Stopping.into());
            }
            written += self.publish_some(some).await?;
        }
        Ok(written)
    }
}
