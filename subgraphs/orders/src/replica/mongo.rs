//! The replica in MongoDB: one document a customer, a batch in one `update` command.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use futures::TryStreamExt;
use mongodb::{
    Collection, Database,
    bson::{self, Document, doc},
};
use tandem_kit::store::StoreError;

use super::{COLLECTION, ReplicaCustomer, ReplicaStore};

/// Statements in one command.
const STATEMENTS: usize = 500;
/// How long the server may take for one operation.
const LIMIT: Duration = Duration::from_secs(5);
/// The server's code for a statement whose upsert met a document that is there.
const DUPLICATE_KEY: i32 = 11_000;

/// The replica in MongoDB.
#[derive(Clone, Debug)]
pub struct MongoReplica {
    database: Database,
    customers: Collection<Document>,
}

impl MongoReplica {
    /// The replica in this database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        let customers = database.collection(COLLECTION);
        Self {
            database,
            customers,
        }
    }
}

fn away(error: mongodb::error::Error) -> StoreError {
    StoreError::Away(error.to_string())
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(error.to_string())
}

fn to_document(customer: &ReplicaCustomer) -> Result<Document, StoreError> {
    let mut document = bson::serialize_to_document(customer).map_err(corrupt)?;
    document.remove("id");
    Ok(document)
}

fn from_document(mut document: Document) -> Result<ReplicaCustomer, StoreError> {
    if let Some(id) = document.remove("_id") {
        document.insert("id", id);
    }
    bson::deserialize_from_document(document).map_err(corrupt)
}

#[async_trait]
impl ReplicaStore for MongoReplica {
    async fn upsert(&self, customers: Vec<ReplicaCustomer>) -> Result<(), StoreError> {
        for chunk in customers.chunks(STATEMENTS) {
            let updates = chunk
                .iter()
                .map(|customer| {
                    // A document of the same or a newer revision does not match; the insert then meets its `_id`.
                    Ok(doc! {
                        "q": { "_id": &customer.id, "revision": { "$lt": customer.revision } },
                        "u": to_document(customer)?,
                        "upsert": true,
                    })
                })
                .collect::<Result<Vec<_>, StoreError>>()?;
            let answer = self
                .database
                .run_command(doc! {
                    "update": COLLECTION,
                    "updates": updates,
                    "ordered": false,
                    "maxTimeMS": i64::try_from(LIMIT.as_millis()).unwrap_or(i64::MAX),
                    "writeConcern": { "w": "majority", "j": true },
                })
                .await
                .map_err(away)?;
            check(&answer)?;
        }
        Ok(())
    }

    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<ReplicaCustomer>>, StoreError> {
        let found: Vec<Document> = self
            .customers
            .find(doc! { "_id": { "$in": ids } })
            .max_time(LIMIT)
            .await
            .map_err(away)?
            .try_collect()
            .await
            .map_err(away)?;
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
        self.customers
            .find(filter)
            .sort(doc! { "_id": 1 })
            .limit(i64::try_from(limit).unwrap_or(i64::MAX))
            .max_time(LIMIT)
            .await
            .map_err(away)?
            .map_err(away)
            .and_then(|document| std::future::ready(from_document(document)))
            .try_collect()
            .await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.database
            .run_command(doc! { "ping": 1 })
            .await
            .map(|_| ())
            .map_err(away)
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
