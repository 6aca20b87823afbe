//! Rebuilds aggregates: restores the newest revision of each.

use std::{collections::HashMap, marker::PhantomData, sync::Arc};

use async_trait::async_trait;
use tandem_model::{aggregate::Aggregate, message::Message};

use super::{Decoded, Differing, Entries, Keeps, Rebuilt, content_of};
use crate::{
    data_keys::Unopened,
    store::{AggregateStore, PublishedRow, StoreError},
    waiting::Waiting,
};

/// Turns messages into states.
#[async_trait]
pub trait ReadStates<A>: Send + Sync + 'static {
    /// The decoded content of a message.
    type Event: Send + Sync + 'static;
    /// The keys that are needed to open sealed parts of messages.
    type Keys: Send + Sync + 'static;

    /// Decodes a message. `None` if it cannot be decoded. A pure function without I/O.
    fn decode(&self, message: &Message) -> Option<Decoded<Self::Event>>;

    /// The keys for these events.
    ///
    /// # Errors
    /// When the keys cannot be read now. The call is repeated.
    async fn keys(&self, events: &[&Self::Event]) -> Result<Self::Keys, StoreError>;

    /// The state after the change. A pure function without I/O.
    ///
    /// # Errors
    /// Why the event cannot be opened.
    fn open(&self, event: Self::Event, keys: &Self::Keys) -> Result<A, Unopened>;
}

/// Rebuilds aggregates.
pub struct RebuildAggregates<A: Aggregate, S> {
    store: Arc<dyn AggregateStore<A>>,
    topic: &'static str,
    reader: S,
    waiting: Waiting,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate, S: ReadStates<A>> RebuildAggregates<A, S> {
    /// Rebuilds this store from this topic with this reader. Events that cannot be opened are kept in `waiting`.
    #[must_use]
    pub fn new(
        store: Arc<dyn AggregateStore<A>>,
        topic: &'static str,
        reader: S,
        waiting: Waiting,
    ) -> Self {
        Self {
            store,
            topic,
            reader,
            waiting,
            aggregate: PhantomData,
        }
    }
}

#[async_trait]
impl<A: Aggregate, S: ReadStates<A>> Rebuilt for RebuildAggregates<A, S> {
    type Event = S::Event;
    type Keys = S::Keys;
    type Row = A;

    fn name(&self) -> &'static str {
        A::COLLECTION
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    fn keeps(&self) -> Keeps {
        Keeps::Newest
    }

    fn decode(&self, message: &Message) -> Option<Decoded<S::Event>> {
        self.reader.decode(message)
    }

    async fn keys(&self, events: &[&S::Event]) -> Result<S::Keys, StoreError> {
        self.reader.keys(events).await
    }

    fn open(&self, event: S::Event, keys: &S::Keys) -> Result<A, Unopened> {
        self.reader.open(event, keys)
    }

    fn waiting(&self) -> Option<&Waiting> {
        Some(&self.waiting)
    }

    async fn revisions(&self, ids: &[String]) -> Result<HashMap<String, i64>, StoreError> {
        let stored = self.store.get_many(ids).await?;
        let stored = stored.into_iter().flatten();
        Ok(stored
            .map(|stored| (stored.state.id().to_owned(), stored.state.revision()))
            .collect())
    }

    async fn write(&self, rows: &[A], _: Entries) -> Result<Differing, StoreError> {
        self.store.restore(rows).await?;
        Ok(Differing::default())
    }

    async fn contents(&self, seen: &[PublishedRow]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        let ids: Vec<String> = seen.iter().map(|seen| seen.id.clone()).collect();
        let stored = self.store.get_many(&ids).await?;
        let contents = stored.into_iter().map(|stored| content_of(&stored?.state));
        Ok(contents.collect())
    }

    fn row_of(&self, content: &[u8]) -> Result<(String, i64, A), serde_json::Error> {
        let state: A = serde_json::from_slice(content)?;
        Ok((state.id().to_owned(), state.revision(), state))
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        self.store.published(after, limit).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        self.store.remove(seen).await
    }

    async fn revert(&self, rows: &[(PublishedRow, A)]) -> Result<u64, StoreError> {
        self.store.revert(rows).await
    }
}
