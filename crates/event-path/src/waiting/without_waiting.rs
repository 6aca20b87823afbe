//! The dead letters of a store without the waiting events that are kept beside them, so that operators see only dead
//! letters.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Waiting, is_waiting};
use crate::store::{DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId, StoreError};

/// The dead letters without waiting events. For operators that list, retry or discard dead letters.
pub struct WithoutWaiting {
    /// The store that holds both.
    pub letters: Arc<dyn DeadLetterStore>,
    /// The waiting events of each reader.
    pub waiting: Vec<Waiting>,
}

#[async_trait]
impl DeadLetterStore for WithoutWaiting {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.letters.park(letters).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        while found.len() < limit {
            let wanted = limit - found.len();
            let page = self
                .letters
                .dead_letters(filter, after.as_ref(), wanted)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id());
            found.extend(
                page.into_iter()
                    .filter(|letter| !is_waiting(&letter.consumer)),
            );
        }
        Ok(found)
    }

    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError> {
        if is_waiting(&id.consumer) {
            return Ok(None);
        }
        self.letters.dead_letter(id).await
    }

    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        if let Some(consumer) = &filter.consumer {
            return if is_waiting(consumer) {
                Ok(0)
            } else {
                self.letters.count(filter).await
            };
        }
        let mut count = self.letters.count(filter).await?;
        for waiting in &self.waiting {
            let theirs = DeadLetterFilter {
                consumer: Some(waiting.0.consumer.clone()),
                key: filter.key.clone(),
            };
            count = count.saturating_sub(self.letters.count(&theirs).await?);
        }
        Ok(count)
    }

    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError> {
        self.letters.parked_keys(consumer).await
    }

    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError> {
        if is_waiting(&id.consumer) {
            return Ok(false);
        }
        self.letters.unpark(id).await
    }

    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError> {
        if is_waiting(consumer) {
            return Ok(0);
        }
        self.letters.unpark_key(consumer, key).await
    }
}
