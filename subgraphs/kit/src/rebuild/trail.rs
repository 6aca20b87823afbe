//! An audit trail: of each revision the first sighting in the log, with its position, on which live cursors rely
//! (`docs/decisions/0005-live-cursors.md`).

use std::sync::Arc;

use async_trait::async_trait;

use super::{Heard, Keeps, Rebuilt};
use crate::{
    consumer::Projection,
    kafka::message::Message,
    store::{ChangeLog, ChangeRecord, Settled, StoreError},
};

/// Rebuilds an audit trail.
pub struct RebuildTrail<P> {
    projection: Arc<P>,
    changes: Arc<dyn ChangeLog>,
    topic: &'static str,
}

impl<P: Projection<Item = ChangeRecord>> RebuildTrail<P> {
    /// Rebuilds this audit trail from this topic, as its projection reads it.
    #[must_use]
    pub fn new(projection: Arc<P>, changes: Arc<dyn ChangeLog>, topic: &'static str) -> Self {
        Self {
            projection,
            changes,
            topic,
        }
    }
}

#[async_trait]
impl<P: Projection<Item = ChangeRecord>> Rebuilt for RebuildTrail<P> {
    type Told = ChangeRecord;
    type Keys = ();
    type Row = ChangeRecord;

    fn name(&self) -> &'static str {
        self.projection.name()
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    fn keeps(&self) -> Keeps {
        Keeps::Each
    }

    fn hear(&self, message: &Message) -> Option<Heard<ChangeRecord>> {
        let record = self.projection.decode(message).ok()?;
        Some(Heard {
            id: record.subject.clone(),
            revision: record.revision,
            told: record,
        })
    }

    async fn keys(&self, _: &[&ChangeRecord]) -> Result<(), StoreError> {
        Ok(())
    }

    fn open(&self, told: ChangeRecord, (): &()) -> Option<ChangeRecord> {
        Some(told)
    }

    async fn write(&self, rows: &[ChangeRecord]) -> Result<u64, StoreError> {
        self.changes.put_back(rows).await
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        self.changes.settled(after, limit).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        self.changes.remove(seen).await
    }

    async fn set_back(&self, _: &[(Settled, ChangeRecord)]) -> Result<u64, StoreError> {
        // An entry has no newer state: one that differs is put back, any other that the log has not is removed.
        Ok(0)
    }
}
