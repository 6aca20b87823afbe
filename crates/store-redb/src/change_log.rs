//! The audit trail in the embedded store.

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use redb::{ReadableTable, TableDefinition};

use super::{Durable, EmbeddedStore, version_of};
use tandem_event_path::store::{ChangeLog, ChangeRecord, ChangesRequest, PublishedRow, StoreError};

/// (subject, revision) → record.
type Changes = TableDefinition<'static, (&'static str, i64), &'static [u8]>;

/// One audit trail in its own table.
#[derive(Clone, Debug)]
pub struct EmbeddedChangeLog {
    store: Arc<EmbeddedStore>,
    name: &'static str,
}

impl EmbeddedChangeLog {
    /// The audit trail with this name, such as `customer.changes`. It is created if it does not exist.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub async fn open(store: Arc<EmbeddedStore>, name: &'static str) -> Result<Self, StoreError> {
        store
            .write(Durable::Yes, move |transaction| {
                transaction.open_table(Changes::new(name))?;
                Ok(())
            })
            .await?;
        Ok(Self { store, name })
    }
}

#[async_trait]
impl ChangeLog for EmbeddedChangeLog {
    async fn append(&self, records: Vec<ChangeRecord>) -> Result<(), StoreError> {
        let codec = self.store.codec();
        let rows = records
            .into_iter()
            .map(|record| {
                let bytes = codec.encode(&record.subject, &record)?;
                Ok((record.subject, record.revision, bytes))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        let changes = Changes::new(self.name);
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(changes)?;
                for (subject, revision, bytes) in &rows {
                    let key = (subject.as_str(), *revision);
                    if table.get(key)?.is_none() {
                        table.insert(key, bytes.as_slice())?;
                    }
                }
                Ok(())
            })
            .await
    }

    async fn put_back(&self, records: &[ChangeRecord]) -> Result<u64, StoreError> {
        let changes = Changes::new(self.name);
        let (codec, records) = (self.store.codec().clone(), records.to_vec());
        // Most entries exist and are right. They need only a read.
        let (rows, replaced) = self
            .store
            .read(move |transaction| {
                let table = transaction.open_table(changes)?;
                let (mut rows, mut replaced) = (Vec::new(), 0);
                for record in records {
                    let stored = table.get((record.subject.as_str(), record.revision))?;
                    if let Some(stored) = stored {
                        let decoded = codec.decode::<ChangeRecord>(&record.subject, stored.value());
                        if decoded.is_ok_and(|stored| stored == record) {
                            continue;
                        }
                        replaced += 1;
                    }
                    let bytes = codec.encode(&record.subject, &record)?;
                    rows.push((record.subject, record.revision, bytes));
                }
                Ok((rows, replaced))
            })
            .await?;
        if rows.is_empty() {
            return Ok(0);
        }
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(changes)?;
                for (subject, revision, bytes) in &rows {
                    table.insert((subject.as_str(), *revision), bytes.as_slice())?;
                }
                Ok(replaced)
            })
            .await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let changes = Changes::new(self.name);
        let after = after.map(|seen| (seen.id.clone(), seen.revision));
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(changes)?;
                let from = after
                    .as_ref()
                    .map_or(Bound::Unbounded, |(subject, revision)| {
                        Bound::Excluded((subject.as_str(), *revision))
                    });
                table
                    .range::<(&str, i64)>((from, Bound::Unbounded))?
                    .take(limit)
                    .map(|row| {
                        let (key, bytes) = row?;
                        let (subject, revision) = key.value();
                        Ok(PublishedRow {
                            id: subject.to_owned(),
                            revision,
                            version: version_of(bytes.value()),
                        })
                    })
                    .collect()
            })
            .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let (changes, seen) = (Changes::new(self.name), seen.to_vec());
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(changes)?;
                let mut removed = 0;
                for seen in &seen {
                    let key = (seen.id.as_str(), seen.revision);
                    let same = table
                        .get(key)?
                        .is_some_and(|bytes| version_of(bytes.value()) == seen.version);
                    if same {
                        table.remove(key)?;
                        removed += 1;
                    }
                }
                Ok(removed)
            })
            .await
    }

    async fn changes(
        &self,
        requests: &[ChangesRequest],
    ) -> Result<Vec<Vec<ChangeRecord>>, StoreError> {
        let (changes, codec, requests) = (
            Changes::new(self.name),
            self.store.codec().clone(),
            requests.to_vec(),
        );
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(changes)?;
                let mut pages = Vec::with_capacity(requests.len());
                for request in &requests {
                    let subject = request.subject.as_str();
                    let range = (
                        Bound::Excluded((subject, request.after_revision)),
                        Bound::Included((subject, i64::MAX)),
                    );
                    let mut page = Vec::new();
                    for row in table.range::<(&str, i64)>(range)?.take(request.limit) {
                        page.push(codec.decode(subject, row?.1.value())?);
                    }
                    pages.push(page);
                }
                Ok(pages)
            })
            .await
    }
}
