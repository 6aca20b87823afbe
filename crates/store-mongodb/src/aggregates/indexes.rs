//! The indexes of the collection: answers by key and by time, pending events, and one for each list.

use mongodb::{
    IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};

use super::MongoAggregates;
use crate::{connection::limited, documents::index_name};
use tandem_event_path::store::StoreError;
use tandem_model::aggregate::Aggregate;

/// Index of documents with pending events: their ids, the time of the oldest event and the number. One index serves
/// both queries of the relay, because every change adds an entry to it and removes it again.
pub(super) const OUTBOX_INDEX: &str = "outbox";

impl<A: Aggregate> MongoAggregates<A> {
    /// Creates the missing indexes. Call it until it succeeds, before the first command is accepted: one of the indexes
    /// makes idempotency keys unique. Several instances may do so at once.
    ///
    /// # Errors
    /// If the server does not answer, or has other indexes with these names.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned());
        let is_pending = doc! { "oldestPending": { "$exists": true } };
        let has_answers = doc! { "answers.key": { "$exists": true } };
        let mut indexes = vec![
            IndexModel::builder()
                .keys(doc! { "answers.key": 1 })
                .options(
                    named("answers by key")
                        .unique(true)
                        .partial_filter_expression(has_answers.clone())
                        .build(),
                )
                .build(),
            IndexModel::builder()
                .keys(doc! { "answers.at": 1 })
                .options(
                    named("answers by time")
                        .partial_filter_expression(has_answers)
                        .build(),
                )
                .build(),
            IndexModel::builder()
                .keys(doc! { "_id": 1, "oldestPending": 1, "waiting": 1 })
                .options(
                    named(OUTBOX_INDEX)
                        .partial_filter_expression(is_pending)
                        .build(),
                )
                .build(),
        ];
        for fields in A::INDEXES {
            let mut keys: Document = fields
                .iter()
                .map(|field| (format!("state.{field}"), Bson::Int32(1)))
                .collect();
            keys.insert("_id", 1);
            indexes.push(
                IndexModel::builder()
                    .keys(keys)
                    .options(named(&index_name(fields)).build())
                    .build(),
            );
        }
        limited(async { self.collection.create_indexes(indexes).await }).await?;
        self.answers.prepare().await
    }
}
