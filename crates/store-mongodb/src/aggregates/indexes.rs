//! The indexes of the collection: of answers by key and by time, of pending events, and of each list.

use mongodb::{
    IndexModel,
    bson::{Bson, Document, doc},
    options::IndexOptions,
};

use super::MongoAggregates;
use crate::{connection::limited, documents::index_name};
use tandem_event_path::store::StoreError;
use tandem_model::aggregate::Aggregate;

/// Index of those with pending events: their ids, since when and how many. One for both questions of the relay, since every change puts
/// an entry into it and takes it out again.
pub(super) const OUTBOX_INDEX: &str = "outbox";

impl<A: Aggregate> MongoAggregates<A> {
    /// Makes the indexes that are missing. To be called until it succeeds, before the first command is taken: one of
    /// the indexes is what keeps idempotency keys apart. Several instances may do it at once.
    ///
    /// # Errors
    /// When the server does not answer, or has other indexes under these names.
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
