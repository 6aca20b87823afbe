//! The replica in the embedded store: one table, id → (revision, customer).

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use redb::{ReadOnlyTable, ReadableTable, TableDefinition};
use tandem_event_path::store::{PAGE_BYTES, PublishedRow, StoreError, WriteEpoch};
use tandem_store_redb::{Codec, Durable, EmbeddedStore, WorkError, version_of};

use super::{COLLECTION, Replaces, ReplicaCustomer, ReplicaStore};

const CUSTOMERS: TableDefinition<'static, &str, (i64, &[u8])> = TableDefinition::new(COLLECTION);

/// Up to this many customers are read on the caller's thread, because moving the read to another thread takes longer.
const FEW: usize = 8;

/// The replica in the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedReplica {
    store: Arc<EmbeddedStore>,
}

impl EmbeddedReplica {
    /// Opens the replica in this store, and creates it if it is missing.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn open(store: Arc<EmbeddedStore>) -> Result<Self, StoreError> {
        store
            .write(Durable::Yes, |transaction| {
                transaction.open_table(CUSTOMERS)?;
                Ok(())
            })
            .await?;
        Ok(Self { store })
    }
}

fn find(
    table: &ReadOnlyTable<&'static str, (i64, &'static [u8])>,
    codec: &Codec,
    ids: &[String],
) -> Result<Vec<Option<ReplicaCustomer>>, WorkError> {
    ids.iter()
        .map(|id| match table.get(id.as_str())? {
            Some(row) => Ok(Some(codec.decode(id, row.value().1)?)),
            None => Ok(None),
        })
        .collect()
}

/// A customer in encoded form, so that the writer thread only moves bytes.
struct Row {
    id: String,
    revision: i64,
    bytes: Vec<u8>,
}

impl Row {
    fn new(customer: &ReplicaCustomer, codec: &Codec) -> Result<Self, WorkError> {
        Ok(Self {
            id: customer.id.clone(),
            revision: customer.revision,
            bytes: codec.encode(&customer.id, customer)?,
        })
    }
}

fn is_still(
    table: &impl ReadableTable<&'static str, (i64, &'static [u8])>,
    seen: &PublishedRow,
) -> Result<bool, WorkError> {
    let row = table.get(seen.id.as_str())?;
    Ok(row.is_some_and(|row| {
        let (revision, bytes) = row.value();
        revision == seen.revision && version_of(bytes) == seen.version
    }))
}

impl EmbeddedReplica {
    async fn put(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
        durable: Durable,
    ) -> Result<(), StoreError> {
        let codec = self.store.codec();
        let rows = customers
            .iter()
            .map(|customer| Row::new(customer, codec))
            .collect::<Result<Vec<_>, WorkError>>()?;
        self.store
            .write(durable, move |transaction| {
                let mut table = transaction.open_table(CUSTOMERS)?;
                for Row {
                    id,
                    revision,
                    bytes,
                } in &rows
                {
                    let held = table.get(id.as_str())?.map_or(0, |row| row.value().0);
                    if held < *revision || (replaces == Replaces::OlderOrSame && held == *revision)
                    {
                        table.insert(id.as_str(), (*revision, bytes.as_slice()))?;
                    }
                }
                Ok(())
            })
            .await
    }
}

#[async_trait]
impl ReplicaStore for EmbeddedReplica {
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        self.put(customers, replaces, Durable::Yes).await
    }

    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError> {
        // The epoch is read before the write. If another epoch begins in between, the customers are written again.
        let epoch = self.store.write_epoch();
        self.put(customers, Replaces::Older, Durable::No).await?;
        Ok(Some(epoch))
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        if self.store.write_epoch() != *epoch {
            return Ok(false);
        }
        // A durable write makes all earlier writes durable, too.
        self.store.write(Durable::Yes, |_| Ok(())).await?;
        Ok(self.store.write_epoch() == *epoch)
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let after = after.map(|seen| seen.id.clone());
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(CUSTOMERS)?;
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                table
                    .range::<&str>((from, Bound::Unbounded))?
                    .take(limit)
                    .map(|row| {
                        let (id, row) = row?;
                        let (revision, bytes) = row.value();
                        Ok(PublishedRow {
                            id: id.value().to_owned(),
                            revision,
                            version: version_of(bytes),
                        })
                    })
                    .collect()
            })
            .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let seen = seen.to_vec();
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(CUSTOMERS)?;
                let mut removed = 0;
                for seen in &seen {
                    if is_still(&table, seen)? {
                        table.remove(seen.id.as_str())?;
                        removed += 1;
                    }
                }
                Ok(removed)
            })
            .await
    }

    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError> {
        let codec = self.store.codec();
        let rows = customers
            .iter()
            .map(|(seen, customer)| Ok((seen.clone(), Row::new(customer, codec)?)))
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(CUSTOMERS)?;
                let mut count = 0;
                for (seen, row) in &rows {
                    if is_still(&table, seen)? {
                        table.insert(row.id.as_str(), (row.revision, row.bytes.as_slice()))?;
                        count += 1;
                    }
                }
                Ok(count)
            })
            .await
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        let codec = self.store.codec().clone();
        if ids.len() <= FEW {
            return self
                .store
                .read_here(|transaction| find(&transaction.open_table(CUSTOMERS)?, &codec, ids));
        }
        let ids = ids.to_vec();
        self.store
            .read(move |transaction| find(&transaction.open_table(CUSTOMERS)?, &codec, &ids))
            .await
    }

    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let codec = self.store.codec().clone();
        let after = after.map(str::to_owned);
        self.store
            .read(move |transaction| {
                let table = transaction.open_table(CUSTOMERS)?;
                let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let (mut page, mut bytes) = (Vec::new(), 0);
                for row in table.range::<&str>((from, Bound::Unbounded))?.take(limit) {
                    let (id, value) = row?;
                    let stored = value.value().1;
                    bytes += stored.len();
                    page.push(codec.decode(id.value(), stored)?);
                    if bytes > PAGE_BYTES {
                        break;
                    }
                }
                Ok(page)
            })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.read_here(|transaction| {
            transaction.open_table(CUSTOMERS)?;
            Ok(())
        })
    }
}
