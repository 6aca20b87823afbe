//! The audit trail in the embedded store.

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use redb::{ReadableTable, TableDefinition};

use super::{Durable, EmbeddedStore};
use crate::store::{ChangeLog, ChangeRecord, ChangesRequest, StoreError};

/// (subject, revision) → record.
type Changes = TableDefinition<'static, (&'static str, i64), &'static [u8]>;

/// One audit trail in a table of its own.
#[derive(Clone, Debug)]
pub struct EmbeddedChangeLog {
    store: Arc<EmbeddedStore>,
    name: &'static str,
}

impl EmbeddedChangeLog {
    /// The audit trail of that name, such as `customer.changes`, made if it is not there.
    ///
    /// # Errors
    /// When the file cannot be written.
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
