//! An audit trail: the first occurrence of each revision in the log, with its position. Live cursors rely on the
//! position (`docs/decisions/0005-live-cursors.md`).

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use tandem_model::{cloudevents::RESTORED, message::Message};

use super::{Decoded, Differing, Entries, Keeps, Rebuilt, content_of};
use crate::{
    data_keys::Unopened,
    projection::Projection,
    store::{ChangeLog, ChangeRecord, ChangesRequest, PublishedRow, StoreError},
};

/// Rebuilds an audit trail.
pub struct RebuildTrail<P> {
    projection: Arc<P>,
    changes: Arc<dyn ChangeLog>,
    topic: &'static str,
}

impl<P: Projection<Item: Into<ChangeRecord>>> RebuildTrail<P> {
    /// Rebuilds this audit trail from this topic. The projection decodes its messages.
    #[must_use]
    pub fn new(projection: Arc<P>, changes: Arc<dyn ChangeLog>, topic: &'static str) -> Self {
        Self {
            projection,
            changes,
            topic,
        }
    }

    /// The stored entries with these subjects and revisions.
    async fn stored(
        &self,
        places: impl Iterator<Item = (&String, i64)>,
    ) -> Result<Vec<Entry>, StoreError> {
        let (requests, revisions): (Vec<ChangesRequest>, Vec<i64>) = places
            .map(|(subject, revision)| {
                let request = ChangesRequest {
                    subject: subject.clone(),
                    after_revision: revision.saturating_sub(1),
                    limit: 1,
                };
                (request, revision)
            })
            .unzip();
        if requests.is_empty() {
            return Ok(Vec::new());
        }
        match self.changes.changes(&requests).await {
            Ok(pages) => {
                let found = pages.into_iter().zip(revisions);
                Ok(found
                    .map(|(page, revision)| entry(page, revision))
                    .collect())
            }
            Err(StoreError::Corrupt(_)) => self.stored_one_by_one(&requests, &revisions).await,
            Err(error) => Err(error),
        }
    }

    /// The same, one entry at a time. Used when some entry cannot be read, because the others may still be fine.
    async fn stored_one_by_one(
        &self,
        requests: &[ChangesRequest],
        revisions: &[i64],
    ) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::with_capacity(requests.len());
        for (request, &revision) in requests.iter().zip(revisions) {
            let stored = match self.changes.changes(std::slice::from_ref(request)).await {
                Ok(pages) => entry(pages.into_iter().flatten().collect(), revision),
                Err(StoreError::Corrupt(reason)) => {
                    tracing::error!(
                        subject = request.subject,
                        revision,
                        reason,
                        "an entry of the audit trail cannot be read"
                    );
                    Entry::Unreadable
                }
                Err(error) => return Err(error),
            };
            found.push(stored);
        }
        Ok(found)
    }
}

/// An entry as the log has it.
#[derive(Clone, Debug)]
pub struct LoggedEntry {
    record: ChangeRecord,
    /// Whether the entry comes from a restored event.
    is_restored: bool,
}

/// What is stored in the place of an entry.
enum Entry {
    None,
    Some(ChangeRecord),
    /// Something is stored that cannot be read as an entry.
    Unreadable,
}

impl Entry {
    /// The content in the form for [`Rebuilt::row_of`]. Empty if the entry cannot be read.
    fn content(self) -> Option<Vec<u8>> {
        match self {
            Self::None => None,
            Self::Some(record) => content_of(&record),
            Self::Unreadable => Some(Vec::new()),
        }
    }
}

fn entry(page: Vec<ChangeRecord>, revision: i64) -> Entry {
    let found = page.into_iter().find(|it| it.revision == revision);
    found.map_or(Entry::None, Entry::Some)
}

#[async_trait]
impl<P: Projection<Item: Into<ChangeRecord>>> Rebuilt for RebuildTrail<P> {
    type Event = LoggedEntry;
    type Keys = ();
    type Row = LoggedEntry;

    fn name(&self) -> &'static str {
        self.projection.name()
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    fn keeps(&self) -> Keeps {
        Keeps::Each
    }

    fn decode(&self, message: &Message) -> Option<Decoded<LoggedEntry>> {
        let record: ChangeRecord = self.projection.decode(message).ok()?.into();
        Some(Decoded {
            id: record.subject.clone(),
            revision: record.revision,
            event: LoggedEntry {
                record,
                is_restored: message.header(RESTORED).is_some(),
            },
        })
    }

    async fn keys(&self, _: &[&LoggedEntry]) -> Result<(), StoreError> {
        Ok(())
    }

    fn open(&self, event: LoggedEntry, (): &()) -> Result<LoggedEntry, Unopened> {
        Ok(event)
    }

    async fn revisions(&self, _: &[String]) -> Result<HashMap<String, i64>, StoreError> {
        // Entries have no sealed parts, so no event ever waits and nobody needs the revisions.
        Ok(HashMap::new())
    }

    async fn write(&self, rows: &[LoggedEntry], entries: Entries) -> Result<Differing, StoreError> {
        let places = rows.iter();
        let stored = self
            .stored(places.map(|row| (&row.record.subject, row.record.revision)))
            .await?;
        let mut differing = Differing::default();
        let mut records = Vec::with_capacity(rows.len());
        for (
            stored,
            LoggedEntry {
                record,
                is_restored,
            },
        ) in stored.into_iter().zip(rows)
        {
            let differs = match &stored {
                Entry::None => false,
                // A restored event holds less than the original, which was recorded when the change was made.
                Entry::Some(stored) if stored != record && *is_restored => {
                    differing.only_stored += 1;
                    continue;
                }
                Entry::Some(stored) => stored != record,
                Entry::Unreadable => true,
            };
            if differs && entries == Entries::Left {
                differing.left.extend(stored.content());
            }
            records.push(record.clone());
        }
        match entries {
            Entries::Left => self.changes.append(records).await?,
            Entries::Replaced => differing.replaced = self.changes.put_back(&records).await?,
        }
        Ok(differing)
    }

    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let stored = self
            .stored(seen.iter().map(|seen| (&seen.id, seen.revision)))
            .await?;
        Ok(stored.into_iter().map(Entry::content).collect())
    }

    fn row_of(&self, content: &[u8]) -> Result<(String, i64, LoggedEntry), serde_json::Error> {
        let record: ChangeRecord = serde_json::from_slice(content)?;
        let (subject, revision) = (record.subject.clone(), record.revision);
        let is_restored = false;
        Ok((
            subject,
            revision,
            LoggedEntry {
                record,
                is_restored,
            },
        ))
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        self.changes.published(after, limit).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        self.changes.remove(seen).await
    }

    async fn revert(&self, _: &[(PublishedRow, LoggedEntry)]) -> Result<u64, StoreError> {
        // An entry has no newer state to revert. An entry that differs is replaced, and one that the log lacks is
        // removed.
        Ok(0)
    }
}
