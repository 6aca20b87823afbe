//! A change that also forgets all earlier first answers of its aggregate, for example an erasure.

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
    /// Writes a change and forgets all earlier answers. It is a separate command, because such changes are rare, and
    /// because only an update with a pipeline can rewrite the marks.
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
            // If the command was sent twice after a failure, the second attempt finds the result of the first.
            if matched || self.collection.count_documents(done).await? > 0 {
                return Ok(Outcome::Written);
            }
            let stored = doc! { "_id": id, "revision": expected };
            let is_there = self.collection.count_documents(stored).await? > 0;
            // The revision is the expected one, so the idempotency key made the filter fail.
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

    /// Removes the forgotten answers. If this fails, the next cleaning of old answers repeats it.
    async fn clean(&self, id: &str) {
        if let Err(error) = self.answers.clean(Some(id)).await {
            tracing::warn!(%error, "answers that are forgotten could not be removed; trying again later");
        }
    }
}
