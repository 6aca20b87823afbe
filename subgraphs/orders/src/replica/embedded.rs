//! The replica in the embedded store: one table, id → (revision, customer).

use std::{ops::Bound, sync::Arc};

use async_trait::async_trait;
use redb::{ReadOnlyTable, ReadableTable, TableDefinition};
use tandem_kit::store::{
    StoreError,
    embedded::{Codec, Durable, EmbeddedStore, away},
};

use super::{COLLECTION, Replaces, ReplicaCustomer, ReplicaStore};

const CUSTOMERS: TableDefinition<'static, &str, (i64, &[u8])> = TableDefinition::new(COLLECTION);

/// So many customers are read on the caller's thread: handing them to another takes longer.
const FEW: usize = 8;

/// The replica in the embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedReplica {
    store: Arc<EmbeddedStore>,
}

impl EmbeddedReplica {
    /// The replica in this store, made if it is not there.
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
) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
    ids.iter()
        .map(|id| match table.get(id.as_str())? {
            Some(row) => codec.decode(id, row.value().1).map(Some),
            None => Ok(None),
        })
        .collect()
}

#[async_trait]
impl ReplicaStore for EmbeddedReplica {
    async fn upsert(
        &self,
        customers: Vec<ReplicaCustomer>,
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        let codec = self.store.codec();
        let rows = customers
            .into_iter()
            .map(|customer| {
                let bytes = codec.encode(&customer.id, &customer)?;
                Ok((customer.id, customer.revision, bytes))
            })
            .collect::<Result<Vec<_>, StoreError>>()?;
        self.store
            .write(Durable::Yes, move |transaction| {
                let mut table = transaction.open_table(CUSTOMERS)?;
                for (id, revision, bytes) in &rows {
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
                table
                    .range::<&str>((from, Bound::Unbounded))?
                    .take(limit)
                    .map(|row| {
                        let (id, value) = row.map_err(away)?;
                        codec.decode(id.value(), value.value().1)
                    })
                    .collect()
            })
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store
            .read_here(|transaction| transaction.open_table(CUSTOMERS).map(|_| ()).map_err(away))
    }
}
