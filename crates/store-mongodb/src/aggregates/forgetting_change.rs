//! A change after which nothing is left of the answers before it, as when somebody is erased.

use mongodb::bson::doc;

use super::MongoAggregates;
use crate::{
    connection::{is_duplicate, limited},
    documents::{binary, date},
    statement::forgetting_change,
};
use tandem_event_path::store::{Outcome, StoreError, Write};
use tandem_model::aggregate::Aggregate;

impl<A: Aggregate> MongoAggregates<A> {
    /// Writes a change after which nothing is left of the answers before it. A command of its own: such changes are rare, and what
    /// rewrites the marks is a pipeline, which no other statement is.
    pub(super) async fn write_and_forget(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        let answer = binary(write.event.event.id);
        let names: Vec<&str> = match &write.idempotency_key {
            Some(key) => {
                let at = date(write.event.recorded_at);
                self.answers.put(answer, at, &write.state).await?;
                key.names().collect()
            }
            None => Vec::new(),
        };
        let (id, expected) = (write.state.id(), write.expected_revision);
        let filter = doc! { "_id": id, "revision": expected, "answers.key": { "$nin": &names } };
        let done = doc! { "_id": id, "recentEvents": answer };
        let update = forgetting_change(write)?;
        let writing = async {
            let matched = match self.collection.update_one(filter, update).await {
                Ok(done) => done.matched_count > 0,
                Err(error) if is_duplicate(&error) => return Ok(Outcome::KeyTaken),
                Err(error) => return Err(error),
            };
            // Sent twice after a failure, the second finds what the first has done.
            if matched || self.collection.count_documents(done).await? > 0 {
                return Ok(Outcome::Written);
            }
            let stored = doc! { "_id": id, "revision": expected };
            let is_there = self.collection.count_documents(stored).await? > 0;
            // The revision is the expected one, so it was the key that kept the filter from matching.
            Ok(if is_there {
                Outcome::KeyTaken
            } else {
                Outcome::Stale
            })
        };
        let outcome = limited(writing).await?;
        if outcome == Outcome::Written {
            self.clean(id).await;
        } else if write.idempotency_key.is_some() {
            self.answers.discard(answer).await;
        }
        Ok(outcome)
    }

    /// Removes the answers that a change has forgotten. If that fails now, it is done with the next look for old ones.
    async fn clean(&self, id: &str) {
        if let Err(error) = self.answers.clean(Some(id)).await {
            tracing::warn!(%error, "answers that are forgotten could not be removed; trying again later");
        }
    }
}
