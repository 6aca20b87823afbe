//! Aggregates: of each, the newest revision is restored.

use std::{marker::PhantomData, sync::Arc};

use async_trait::async_trait;

use super::{Heard, Keeps, Rebuilt};
use crate::{
    aggregate::Aggregate,
    kafka::message::Message,
    store::{AggregateStore, Settled, StoreError},
};

/// Makes states of messages.
#[async_trait]
pub trait ReadStates<A>: Send + Sync + 'static {
    /// What a message says.
    type Told: Send + Sync + 'static;
    /// What it takes to open what is sealed in messages.
    type Keys: Send + Sync + 'static;

    /// Reads a message, `None` if it cannot be read. Pure: it asks nobody.
    fn hear(&self, message: &Message) -> Option<Heard<Self::Told>>;

    /// What it takes to open these.
    ///
    /// # Errors
    /// When that cannot be told now: it is asked again.
    async fn keys(&self, told: &[&Self::Told]) -> Result<Self::Keys, StoreError>;

    /// The state after the change, `None` if it does not open. Pure: it asks nobody.
    fn open(&self, told: Self::Told, keys: &Self::Keys) -> Option<A>;
}

/// Rebuilds aggregates.
pub struct RebuildAggregates<A: Aggregate, S> {
    store: Arc<dyn AggregateStore<A>>,
    topic: &'static str,
    reader: S,
    aggregate: PhantomData<fn() -> A>,
}

impl<A: Aggregate, S: ReadStates<A>> RebuildAggregates<A, S> {
    /// Rebuilds this store from this topic, as this reader reads it.
    #[must_use]
    pub fn new(store: Arc<dyn AggregateStore<A>>, topic: &'static str, reader: S) -> Self {
        Self {
            store,
            topic,
            reader,
            aggregate: PhantomData,
        }
    }
}

#[async_trait]
impl<A: Aggregate, S: ReadStates<A>> Rebuilt for RebuildAggregates<A, S> {
    type Told = S::Told;
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

    fn hear(&self, message: &Message) -> Option<Heard<S::Told>> {
        self.reader.hear(message)
    }

    async fn keys(&self, told: &[&S::Told]) -> Result<S::Keys, StoreError> {
        self.reader.keys(told).await
    }

    fn open(&self, told: S::Told, keys: &S::Keys) -> Option<A> {
        self.reader.open(told, keys)
    }

    async fn write(&self, rows: &[A]) -> Result<u64, StoreError> {
        self.store.restore(rows).await.map(|()| 0)
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        self.store.settled(after, limit).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        self.store.remove(seen).await
    }

    async fn set_back(&self, rows: &[(Settled, A)]) -> Result<u64, StoreError> {
        self.store.set_back(rows).await
    }
}
