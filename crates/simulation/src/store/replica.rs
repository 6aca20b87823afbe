//! The replica port on a simulated database.

use async_trait::async_trait;
use tandem_event_path::store::{PublishedRow, StoreError, WriteEpoch};
use tandem_model::aggregate::Aggregate;
use tandem_orders::replica::{Replaces, ReplicaCustomer, ReplicaStore};

use super::{
    Database,
    db::{Db, bytes},
};
use crate::faults::Fault;

#[async_trait]
impl<A: Aggregate> ReplicaStore for Database<A> {
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        let (customers, version) = (customers.to_vec(), self.0.world.number());
        self.write("upsert", move |db| db.upsert(&customers, replaces, version))
            .await
    }

    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError> {
        let (customers, version) = (customers.to_vec(), self.0.world.number());
        let written = self
            .write_early(move |db| db.upsert(&customers, Replaces::Older, version))
            .await;
        written.map(|((), epoch)| Some(epoch))
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        // If a majority has a later write of the same epoch, it has all earlier ones, too.
        let confirm = |db: &mut Db<A>| db.confirmed += 1;
        let ((), held) = self.write_in_epoch("confirm", confirm).await?;
        Ok(held == *epoch || self.0.faults.has(Fault::EpochNotLookedAt))
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let after = after.map(|after| after.id.clone());
        self.read(move |db| {
            let rows = db.replica.iter();
            rows.filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after))
                .take(limit)
                .map(|(id, (held, version))| PublishedRow {
                    id: id.clone(),
                    revision: held.revision,
                    version: bytes(*version),
                })
                .collect()
        })
        .await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let seen = seen.to_vec();
        self.write("remove", move |db| {
            let mut removed = 0;
            for seen in &seen {
                if is_as_seen(db, seen) {
                    db.replica.remove(&seen.id);
                    removed += 1;
                }
            }
            removed
        })
        .await
    }

    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError> {
        let (customers, version) = (customers.to_vec(), self.0.world.number());
        self.write("revert", move |db| {
            let mut done = 0;
            for (seen, customer) in &customers {
                if is_as_seen(db, seen) {
                    let row = (customer.clone(), version);
                    db.replica.insert(seen.id.clone(), row);
                    done += 1;
                }
            }
            done
        })
        .await
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        let ids = ids.to_vec();
        self.read_early(move |db| {
            let held = |id| db.replica.get(id).map(|(held, _)| held.clone());
            ids.iter().map(held).collect()
        })
        .await
    }

    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let after = after.map(str::to_owned);
        self.read_early(move |db| {
            let rows = db.replica.iter();
            let mut bytes = 0;
            rows.filter(|(id, _)| after.as_ref().is_none_or(|after| *id > after))
                .take(limit)
                .take_while(|(_, (held, _))| {
                    let is_first = bytes == 0;
                    bytes += serde_json::to_vec(held).map_or(0, |it| it.len());
                    is_first || bytes <= tandem_event_path::store::PAGE_BYTES
                })
                .map(|(_, (held, _))| held.clone())
                .collect()
        })
        .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.read(|_| ()).await
    }
}

fn is_as_seen<A>(db: &Db<A>, seen: &PublishedRow) -> bool {
    let held = db.replica.get(&seen.id);
    held.is_some_and(|(_, version)| bytes(*version) == seen.version)
}
