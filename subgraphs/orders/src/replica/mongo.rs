//! The replica in MongoDB: one document a customer, a batch in few commands.

use std::collections::HashMap;

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{self, Document, RawBsonRef, RawDocument, RawDocumentBuf, cstr, doc, raw::CStr},
    options::{CollectionOptions, ReadConcern},
};
use serde::Serialize;
use tandem_kit::{
    store::{
        Settled, StoreError, Term,
        mongo::{
            Bulk, Concern, Done, InPlace, MongoStore, SERVER_LIMIT, Wanted, bulk, bulk_with,
            deletion, from_native, is_up_to_date, limited, replacement, settled_page, still_as,
            stored_revision,
        },
    },
    values::Timestamp,
};

use super::{COLLECTION, Contact, Name, Replaces, ReplicaCustomer, ReplicaStore};
use crate::domain::Address;

/// What differs from one writing of a row to the next.
const SEEN: [&str; 3] = ["revision", "changedAt", "replicatedAt"];

/// The replica in MongoDB.
#[derive(Clone, Debug)]
pub struct MongoReplica {
    store: MongoStore,
    customers: Collection<Document>,
    /// The same, read as the primary has it: also what is shown and not yet certain to stay.
    shown: Collection<Document>,
}

impl MongoReplica {
    /// The replica in this database.
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
            shown,
        }
    }

    /// Writes customers over older ones, without a look. A first revision is over none: it is inserted, which costs MongoDB half of
    /// what an upsert does, or there is one already that is not older.
    async fn put(
        &self,
        customers: &[ReplicaCustomer],
        concern: Concern,
    ) -> Result<Done, StoreError> {
        let (first, later): (Vec<_>, Vec<_>) = customers
            .iter()
            .partition(|customer| customer.revision == 1);
        let insertion = |customer: &&ReplicaCustomer| row(customer);
        // A document that is not to be replaced does not match; the insert then meets its `_id`.
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

    /// Writes customers over those of the same revision too: most say the same already.
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

/// A customer as a document.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    name: &'a Name,
    contact: &'a Contact,
    addresses: &'a [Address],
    revision: i64,
    changed_at: Timestamp,
    replicated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_key: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    erased: bool,
}

/// The document of a customer.
fn row(customer: &ReplicaCustomer) -> Result<RawDocumentBuf, StoreError> {
    // By name, so that a field that is added is not forgotten here.
    let ReplicaCustomer {
        id,
        name,
        contact,
        addresses,
        revision,
        changed_at,
        replicated_at,
        data_key,
        erased,
    } = customer;
    let row = Row {
        id,
        name,
        contact,
        addresses,
        revision: *revision,
        changed_at: *changed_at,
        replicated_at: *replicated_at,
        data_key: data_key.as_deref(),
        erased: *erased,
    };
    bson::serialize_to_raw_document_buf(&row).map_err(|error| {
        StoreError::Corrupt(format!("the customer {id} cannot be written: {error}"))
    })
}

/// The statement that puts a customer's document in place of one whose revision the operator allows.
fn upsert(
    operator: &str,
    id: &str,
    revision: i64,
    document: &RawDocument,
) -> Result<RawDocumentBuf, StoreError> {
    let filter = doc! { "_id": id, "revision": { operator: revision } };
    replacement(filter, document, true)
}

/// Whether two documents say the same of a customer, whenever it was that they were written.
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

fn from_document(mut document: Document) -> Result<ReplicaCustomer, StoreError> {
    if let Some(id) = document.remove("_id") {
        document.insert("id", id);
    }
    from_native(&document)
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

    async fn show(&self, customers: &[ReplicaCustomer]) -> Result<Option<Term>, StoreError> {
        if self.store.has_terms().await? {
            let shown = self.put(customers, Concern::Primary).await?;
            if let [term] = shown.terms.as_slice() {
                return Ok(Some(term.clone()));
            }
        }
        self.put(customers, Concern::Majority).await?;
        Ok(None)
    }

    async fn keep(&self, term: &Term) -> Result<bool, StoreError> {
        self.store.keep(COLLECTION, term).await
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        let after = after.map_or("", |seen| seen.id.as_str());
        let filter = doc! { "_id": { "$gt": after } };
        let order = doc! { "_id": 1 };
        settled_page(&self.customers, filter, order, limit, "_id", &SEEN).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        let removal = |seen: &Settled| deletion(still_as(seen)?);
        let database = self.store.database();
        bulk(database, COLLECTION, Bulk::Delete, seen, removal)
            .await
            .map(|done| done.matched)
    }

    async fn set_back(&self, customers: &[(Settled, ReplicaCustomer)]) -> Result<u64, StoreError> {
        let set_back = |(seen, customer): &(Settled, ReplicaCustomer)| {
            replacement(still_as(seen)?, &row(customer)?, false)
        };
        let database = self.store.database();
        bulk(database, COLLECTION, Bulk::Update, customers, set_back)
            .await
            .map(|done| done.matched)
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        let filter = doc! { "_id": { "$in": ids } };
        let found: Vec<Document> = limited(async {
            let cursor = self.shown.find(filter).max_time(SERVER_LIMIT).await?;
            cursor.try_collect().await
        })
        .await?;
        let mut by_id = HashMap::with_capacity(found.len());
        for document in found {
            let customer = from_document(document)?;
            by_id.insert(customer.id.clone(), customer);
        }
        // The same id may be asked for twice.
        Ok(ids.iter().map(|id| by_id.get(id).cloned()).collect())
    }

    async fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<ReplicaCustomer>, StoreError> {
        let filter = after.map_or_else(Document::new, |id| doc! { "_id": { "$gt": id } });
        let found: Vec<Document> = limited(async {
            let cursor = self
                .shown
                .find(filter)
                .sort(doc! { "_id": 1 })
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            cursor.try_collect().await
        })
        .await?;
        found.into_iter().map(from_document).collect()
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
