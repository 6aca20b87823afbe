//! The outbox: the pending events inside their aggregates' documents. One index alone answers the relay's frequent
//! queries.

use std::collections::HashMap;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mongodb::{
    bson::{self, Document, doc},
    options::Hint,
};
use serde::Deserialize;

use super::{MongoAggregates, indexes::OUTBOX_INDEX};
use crate::{
    connection::{SERVER_LIMIT, limited, milliseconds, write_concern},
    documents::{PendingDocument, date, time},
    statement::{clear_all, clear_up_to},
};
use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::StoreError,
};
use tandem_model::aggregate::Aggregate;

/// How many documents are cleared of their published events with one command.
const CLEARED_AT_ONCE: usize = 500;

#[derive(Deserialize)]
struct PendingOf {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    pending: Vec<PendingDocument>,
}

#[derive(Deserialize)]
struct BacklogDocument {
    events: i64,
    oldest: bson::DateTime,
}

impl<A: Aggregate> MongoAggregates<A> {
    /// Runs statements that clear events. Returns how many documents they matched.
    async fn forget_pending(&self, updates: Vec<Document>) -> Result<usize, StoreError> {
        let command = doc! {
            "update": A::COLLECTION,
            "updates": updates,
            "ordered": false,
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "writeConcern": write_concern(),
        };
        let reply = limited(async { self.store.database().run_command(command).await }).await?;
        if let Some(error) = reply
            .get_array("writeErrors")
            .ok()
            .and_then(|all| all.first())
        {
            return Err(StoreError::Unavailable(format!(
                "published events stay pending: {error}"
            )));
        }
        let matched = reply.get_i32("n").unwrap_or_default();
        Ok(usize::try_from(matched).unwrap_or_default())
    }
}

#[async_trait]
impl<A: Aggregate> Outbox for MongoAggregates<A> {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        // The lower bound of the id is needed here and below even if any id will do. Without it MongoDB would not
        // search the index for the date.
        let filter = doc! {
            "_id": { "$gt": after_key.unwrap_or_default() },
            "oldestPending": { "$lte": date(recorded_before) },
        };
        // Each document has at least one event, so `limit` documents are enough. Reading stops when there are enough
        // events.
        let reading = async {
            let mut cursor = self
                .collection
                .find(filter)
                .projection(doc! { "pending": 1 })
                .sort(doc! { "_id": 1 })
                .hint(Hint::Name(OUTBOX_INDEX.to_owned()))
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            let (mut documents, mut events) = (Vec::new(), 0);
            while events < limit {
                let Some(document) = cursor.try_next().await? else {
                    break;
                };
                let document: PendingOf = bson::deserialize_from_slice(document.as_bytes())?;
                events += document.pending.len();
                documents.push(document);
            }
            Ok(documents)
        };
        let mut events = Vec::new();
        for document in limited(reading).await? {
            for pending in document.pending {
                events.push(pending.into_event(document.id.clone())?);
            }
        }
        Ok(events)
    }

    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError> {
        for some in published.chunks(CLEARED_AT_ONCE) {
            // Most have the same few revisions. One statement for each revision costs MongoDB less than one for each
            // aggregate.
            let mut of_revision: HashMap<i64, Vec<&str>> = HashMap::new();
            for (id, revision) in some {
                of_revision.entry(*revision).or_default().push(id);
            }
            let all = of_revision
                .iter()
                .map(|(revision, ids)| clear_all(ids, *revision));
            let cleared = self.forget_pending(all.collect()).await?;
            // Some of them have newer events by now, or were cleared before. MongoDB does not say which.
            if cleared < some.len() {
                let parts = some.iter().map(|(id, revision)| clear_up_to(id, *revision));
                self.forget_pending(parts.collect()).await?;
            }
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        // Matches every date. With this condition MongoDB recognizes that the index covers the query.
        let any = doc! { "$gt": bson::DateTime::MIN };
        let pipeline = vec![
            doc! { "$match": { "_id": { "$gt": "" }, "oldestPending": any } },
            doc! { "$group": { "_id": null, "events": { "$sum": "$waiting" }, "oldest": { "$min": "$oldestPending" } } },
        ];
        let reading = async {
            let cursor = self
                .collection
                .aggregate(pipeline)
                .hint(Hint::Name(OUTBOX_INDEX.to_owned()))
                .max_time(SERVER_LIMIT)
                .with_type::<BacklogDocument>()
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        let Some(found) = limited(reading).await?.pop() else {
            return Ok(Backlog::default());
        };
        Ok(Backlog {
            events: u64::try_from(found.events).unwrap_or_default(),
            oldest: Some(time(found.oldest)?),
        })
    }
}
