//! A store that counts its reads, for tests that reads are batched.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::{
        AggregateStore, Outcome, PageRequest, PublishedRow, Span, SpanRequest, StoreError, Stored,
        Write,
    },
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// Wraps a store, and counts how often it is read.
pub struct Counting<A> {
    inner: Arc<dyn AggregateStore<A>>,
    gets: AtomicUsize,
    pages: AtomicUsize,
}

impl<A: Aggregate> Counting<A> {
    /// Counts the reads of `inner`.
    pub fn new(inner: Arc<dyn AggregateStore<A>>) -> Self {
        Self {
            inner,
            gets: AtomicUsize::new(0),
            pages: AtomicUsize::new(0),
        }
    }

    /// How often the store was read by id, and how often for lists, since the last call.
    pub fn reads(&self) -> [usize; 2] {
        [&self.gets, &self.pages].map(|reads| reads.swap(0, Ordering::SeqCst))
    }
}

#[async_trait]
impl<A: Aggregate> AggregateStore<A> for Counting<A> {
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        self.inner.get_many(ids).await
    }

    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        self.inner.write(write).await
    }

    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError> {
        self.inner.first_answer(idempotency_key).await
    }

    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError> {
        self.inner.keep_answer(idempotency_key, state, at).await
    }

    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.inner.forget_answers(before).await
    }

    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError> {
        self.inner.forget_answers_of(ids).await
    }

    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.inner.pages(requests).await
    }

    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        self.pages.fetch_add(1, Ordering::SeqCst);
        self.inner.span(request).await
    }

    async fn restore(&self, states: &[A]) -> Result<(), StoreError> {
        self.inner.restore(states).await
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        self.inner.published(after, limit).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        self.inner.remove(seen).await
    }

    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError> {
        self.inner.revert(states).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }

    fn last_failure(&self) -> Option<StoreError> {
        self.inner.last_failure()
    }
}

#[async_trait]
impl<A: Aggregate> Outbox for Counting<A> {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        self.inner.pending(recorded_before, after_key, limit).await
    }

    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError> {
        self.inner.clear(published).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.inner.backlog().await
    }
}
