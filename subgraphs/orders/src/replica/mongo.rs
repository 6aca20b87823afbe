//! The replica in MongoDB: one document a customer, a batch in one `update` command.

use std::collections::HashMap;

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{self, Document, doc},
};
use tandem_kit::store::{
    StoreError,
    mongo::{MongoStore, SERVER_LIMIT, from_native, limited, native, write_concern},
};

use super::{COLLECTION, Replaces, ReplicaCustomer, ReplicaStore};

/// Statements in one command.
const STATEMENTS: usize = 500;
/// The server's code for a statement whose upsert met a document that is there.
const DUPLICATE_KEY: i32 = 11_000;

/// The replica in MongoDB.
#[derive(Clone, Debug)]
pub struct MongoReplica {
    store: MongoStore,
    customers: Collection<Document>,
}

impl MongoReplica {
    /// The replica in this database.
    #[must_use]
    pub fn new(store: MongoStore) -> Self {
        let customers = store.database().collection(COLLECTION);
        Self { store, customers }
    }
}

fn to_document(customer: &ReplicaCustomer) -> Result<Document, StoreError> {
    let mut document = native(customer)?;
    document.remove("id");
    Ok(document)
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
        customers: Vec<ReplicaCustomer>,
        replaces: Replaces,
    ) -> Result<(), StoreError> {
        let operator = match replaces {
            Replaces::Older => "$lt",
            Replaces::OlderOrSame => "$lte",
        };
        for chunk in customers.chunks(STATEMENTS) {
            let updates = chunk
                .iter()
                .map(|customer| {
                    // A document that is not to be replaced does not match; the insert then meets its `_id`.
                    Ok(doc! {
                        "q": { "_id": &customer.id, "revision": { operator: customer.revision } },
                        "u": to_document(customer)?,
                        "upsert": true,
                    })
                })
                .collect::<Result<Vec<_>, StoreError>>()?;
            let command = doc! {
                "update": COLLECTION,
                "updates": updates,
                "ordered": false,
                "maxTimeMS": i64::try_from(SERVER_LIMIT.as_millis()).unwrap_or(i64::MAX),
                "writeConcern": write_concern(),
            };
            let answer =
                limited(async { self.store.database().run_command(command).await }).await?;
            check(&answer)?;
        }
        Ok(())
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        let filter = doc! { "_id": { "$in": ids } };
        let found: Vec<Document> = limited(async {
            let cursor = self.customers.find(filter).max_time(SERVER_LIMIT).await?;
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
                .customers
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

/// Lets older revisions pass, which met the newer document; anything else that failed is an error.
fn check(answer: &Document) -> Result<(), StoreError> {
    if let Ok(error) = answer.get_document("writeConcernError") {
        return Err(StoreError::Away(format!(
            "not enough members have written: {error}"
        )));
    }
    let Ok(errors) = answer.get_array("writeErrors") else {
        return Ok(());
    };
    let other = errors
        .iter()
        .filter_map(bson::Bson::as_document)
        .find(|error| error.get_i32("code").ok() != Some(DUPLICATE_KEY));
    match other {
        Some(error) => Err(StoreError::Away(format!(
            "a customer was not written: {error}"
        ))),
        None => Ok(()),
    }
}
