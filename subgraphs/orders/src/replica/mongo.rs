//! The replica in MongoDB: one document for each customer. A batch is written in few commands.

use async_trait::async_trait;
use mongodb::{
    Collection,
    bson::{self, Document, RawBsonRef, RawDocument, RawDocumentBuf, cstr, doc, raw::CStr},
    options::{CollectionOptions, ReadConcern},
};
use serde::{Deserialize, Serialize};
use tandem_event_path::store::{PublishedRow, StoreError, WriteEpoch};
use tandem_model::values::Timestamp;
use tandem_store_mongodb::{
    Bulk, Concern, Done, GroupRead, InPlace, MongoStore, SERVER_LIMIT, Wanted, bulk, bulk_with,
    deletion, is_up_to_date, limited, published_page, read, read_page, replacement, still_as,
    stored_revision,
};

use super::{COLLECTION, Contact, Name, Replaces, ReplicaCustomer, ReplicaStore};
use crate::domain::Address;

/// The fields that differ from one write of a row to the next.
const SEEN: [&str; 3] = ["revision", "changedAt", "replicatedAt"];

/// The replica in MongoDB.
#[derive(Clone, Debug)]
pub struct MongoReplica {
    store: MongoStore,
    customers: Collection<Document>,
    /// The same collection with read concern `local`. It also shows writes that may still be rolled back.
    shown: Collection<RawDocumentBuf>,
    reads: GroupRead,
}

impl MongoReplica {
    /// Creates the replica in this database.
    #[must_use]
    pub fn new(store: MongoStore) -> Self {
        let database = store.database();
        let customers = database.collection(COLLECTION);
        let local = CollectionOptions::builder()
            .read_concern(ReadConcern::local())
            .build();
        let shown = database.collection_with_options(COLLECTION, local);
        Self {
            store,
            customers,
            reads: GroupRead::new(shown.clone(), Document::new()),
            shown,
        }
    }

    /// Writes customers over older revisions, without reading them first. A first revision replaces nothing, so it is
    /// inserted, which costs MongoDB half of what an upsert does. If there is a document already, it is not older and
    /// stays.
    async fn put(
        &self,
        customers: &[ReplicaCustomer],
        concern: Concern,
    ) -> Result<Done, StoreError> {
        let (first, later): (Vec<_>, Vec<_>) = customers
            .iter()
            .partition(|customer| customer.revision == 1);
        let insertion = |customer: &&ReplicaCustomer| row(customer);
        // A document that must stay does not match the filter. The upsert then tries to insert and fails on the
        // existing `_id`.
        let replacement = |customer: &&ReplicaCustomer| {
            upsert("$lt", &customer.id, customer.revision, &row(customer)?)
        };
        let database = self.store.database();
        let (inserts, updates) = (Bulk::Insert, Bulk::Update);
        let (mut done, replaced) = tokio::try_join!(
            bulk_with(concern, database, COLLECTION, inserts, &first, insertion),
            bulk_with(concern, database, COLLECTION, updates, &later, replacement),
        )?;
        done.add(replaced);
        Ok(done)
    }

    /// Writes customers, also over the same revision. Most documents are equal already.
    async fn put_again(&self, customers: &[ReplicaCustomer]) -> Result<(), StoreError> {
        let in_place = InPlace {
            database: self.store.database(),
            collection: COLLECTION,
            shown: Document::new(),
            may_stay: |stored: &RawDocument, wanted: &RawDocument| {
                is_up_to_date(stored, wanted, say_the_same)
            },
            update: |wanted: &Wanted| {
                let revision = stored_revision(&wanted.document);
                upsert("$lte", &wanted.id, revision, &wanted.document)
            },
        };
        let wanted = |customer: &ReplicaCustomer| {
            Ok(Wanted {
                id: customer.id.clone(),
                document: row(customer)?,
            })
        };
        in_place.put(customers, wanted).await.map(drop)
    }
}

/// A customer as a document. The customer's id is the `_id`.
#[derive(Deserialize, Serialize)]
#[serde(remote = "ReplicaCustomer", rename_all = "camelCase")]
struct Row {
    #[serde(rename = "_id")]
    id: String,
    name: Name,
    contact: Contact,
    addresses: Vec<Address>,
    revision: i64,
    changed_at: Timestamp,
    replicated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data_key: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// The document of a customer.
fn row(customer: &ReplicaCustomer) -> Result<RawDocumentBuf, StoreError> {
    #[derive(Serialize)]
    #[serde(transparent)]
    struct Written<'a>(#[serde(with = "Row")] &'a ReplicaCustomer);

    bson::serialize_to_raw_document_buf(&Written(customer)).map_err(|error| {
        let id = &customer.id;
        StoreError::Corrupt(format!("the customer {id} cannot be written: {error}"))
    })
}

/// The upsert of a customer's document. It replaces a document whose revision matches `operator`.
fn upsert(
    operator: &str,
    id: &str,
    revision: i64,
    document: &RawDocument,
) -> Result<RawDocumentBuf, StoreError> {
    let filter = doc! { "_id": id, "revision": { operator: revision } };
    replacement(filter, document, true)
}

/// Whether two documents hold the same data of a customer, whenever each was replicated.
fn say_the_same(one: &RawDocument, other: &RawDocument) -> bool {
    matches!((said(one), said(other)), (Some(one), Some(other)) if one == other)
}

fn said(document: &RawDocument) -> Option<Vec<(&CStr, RawBsonRef<'_>)>> {
    document
        .iter()
        .filter(|field| !matches!(field, Ok((name, _)) if *name == cstr!("replicatedAt")))
        .collect::<Result<_, _>>()
        .ok()
}

/// The customer of a document.
fn customer(document: &RawDocument) -> Result<ReplicaCustomer, StoreError> {
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Stored(#[serde(with = "Row")] ReplicaCustomer);

    read(document).map(|Stored(customer)| customer)
}

#[async_trait]
impl ReplicaStore for MongoReplica {
    async fn upsert(
        &self,
        customers: &[ReplicaCustomer],
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        match replaces {
            Replaces::Older => self.put(customers, Concern::Majority).await.map(drop),
            Replaces::OlderOrSame => self.put_again(customers).await,
        }
    }

    async fn apply_early(
        &self,
        customers: &[ReplicaCustomer],
    ) -> Result<Option<WriteEpoch>, StoreError> {
        if self.store.has_write_epochs().await? {
            let shown = self.put(customers, Concern::Primary).await?;
            if let [epoch] = shown.epochs.as_slice() {
                return Ok(Some(epoch.clone()));
            }
        }
        self.put(customers, Concern::Majority).await?;
        Ok(None)
    }

    async fn confirm_durable(&self, epoch: &WriteEpoch) -> Result<bool, StoreError> {
        self.store.confirm_durable(COLLECTION, epoch).await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let after = after.map_or("", |seen| seen.id.as_str());
        let filter = doc! { "_id": { "$gt": after } };
        let order = doc! { "_id": 1 };
        published_page(&self.customers, filter, order, limit, "_id", &SEEN).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let removal = |seen: &PublishedRow| deletion(still_as(seen)?);
        let database = self.store.database();
        bulk(database, COLLECTION, Bulk::Delete, seen, removal)
            .await
            .map(|done| done.matched)
    }

    async fn revert(
        &self,
        customers: &[(PublishedRow, ReplicaCustomer)],
    ) -> Result<u64, StoreError> {
        let revert = |(seen, customer): &(PublishedRow, ReplicaCustomer)| {
            replacement(still_as(seen)?, &row(customer)?, false)
        };
        let database = self.store.database();
        bulk(database, COLLECTION, Bulk::Update, customers, revert)
            .await
            .map(|done| done.matched)
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        self.reads.get_many(ids, customer).await
    }

    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let filter = after.map_or_else(Document::new, |id| doc! { "_id": { "$gt": id } });
        let (found, _) = limited(async {
            let mut cursor = self
                .shown
                .find(filter)
                .sort(doc! { "_id": 1 })
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .batch_size(u32::try_from(limit).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            read_page(&mut cursor, limit, customer).await
        })
        .await??;
        Ok(found)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
