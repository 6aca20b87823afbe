//! Accounts on an embedded store in a directory of its own, without Kafka, spoken to without a network.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tandem_accounts::{
    audit::AuditProjection,
    domain::Customer,
    service,
    stores::{NAMES, Stores},
    telling::PersonalData,
};
use tandem_kit::{
    commands::Gate,
    consumer::Projection,
    kafka::message::{Message, Position},
    outbox::{Backlog, Outbox, PendingEvent},
    sealing::Sealer,
    shutdown::Shutdown,
    store::{AggregateStore, Outcome, PageRequest, Settled, StoreError, Stored, Write},
    web::{HttpSettings, middleware::with_middleware},
};
use tempfile::TempDir;
use tower::ServiceExt;

/// The published sample.
pub const SAMPLE: &str = include_str!("../../src/rest/sample-customer.json");

/// The service without its process.
pub struct Accounts {
    pub stores: Stores,
    pub reads: Arc<AtomicUsize>,
    router: Router,
    directory: TempDir,
}

impl Accounts {
    pub async fn start() -> Self {
        Self::start_behind(Gate::open()).await
    }

    pub async fn start_behind(gate: Gate) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), gate).await
    }

    async fn start_in(directory: TempDir, gate: Gate) -> Self {
        let mut stores = open(directory.path()).await;
        let reads = Arc::new(AtomicUsize::new(0));
        stores.aggregates = Arc::new(Counted {
            inner: stores.aggregates,
            reads: Arc::clone(&reads),
        });
        let routes = service::routes(
            &stores,
            None,
            gate,
            &sealer(),
            PersonalData::Sealed,
            &Shutdown::new(),
        );
        Self {
            router: with_middleware(routes, &HttpSettings::default()),
            stores,
            reads,
            directory,
        }
    }

    /// The same data, opened again.
    pub async fn restart(self) -> Self {
        let Self {
            stores,
            router,
            directory,
            ..
        } = self;
        drop((stores, router));
        Self::start_in(directory, Gate::open()).await
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let kind = response
            .headers()
            .get(header::CONTENT_TYPE)
            .map(|kind| kind.to_str().unwrap().to_owned())
            .unwrap_or_default();
        let body = axum::body::to_bytes(response.into_body(), 1 << 24)
            .await
            .unwrap();
        Answer { status, kind, body }
    }

    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        let body = json!({"query": query, "variables": variables}).to_string();
        let answer = self.send("POST", "/graphql", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    /// The data of an answer without errors.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let mut answer = self.graphql(query, variables).await;
        assert!(answer.get("errors").is_none(), "{answer:#}");
        answer["data"].take()
    }

    /// The extensions of the one error of an answer.
    pub async fn refusal(&self, query: &str, variables: Value) -> Value {
        let mut answer = self.graphql(query, variables).await;
        assert_eq!(
            answer["errors"].as_array().map(Vec::len),
            Some(1),
            "{answer:#}"
        );
        answer["errors"][0]["extensions"].take()
    }

    pub async fn pending(&self) -> Vec<PendingEvent> {
        self.stores
            .aggregates
            .pending(Utc::now(), None, 10_000)
            .await
            .unwrap()
    }

    /// What the audit projection would do with all pending events once they are in the log.
    pub async fn project_audit(&self) {
        let projection = AuditProjection::new(Arc::clone(&self.stores.changes));
        let items = self
            .pending()
            .await
            .iter()
            .enumerate()
            .map(|(offset, pending)| {
                let message = message(pending, i64::try_from(offset).unwrap());
                (message.position, projection.decode(&message).unwrap())
            })
            .collect();
        projection.apply(items).await.unwrap();
    }
}

pub fn sealer() -> Sealer {
    Sealer::new(&[7; 32])
}

pub async fn open(directory: &Path) -> Stores {
    Stores::embedded(NAMES, directory, &sealer())
        .await
        .unwrap()
        .0
}

/// A pending event as it is read from the log.
pub fn message(pending: &PendingEvent, offset: i64) -> Message {
    let event = &pending.event;
    let id = event.id.to_string();
    let time = event.time.to_rfc3339();
    let headers = [
        ("ce_specversion", "1.0"),
        ("ce_id", &id),
        ("ce_source", &event.source),
        ("ce_type", &event.kind),
        ("ce_subject", &event.subject),
        ("ce_time", &time),
        ("ce_dataschema", &event.data_schema),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    Message {
        topic: "accounts.customer.change".to_owned(),
        position: Position {
            partition: 0,
            offset,
        },
        key: Some(pending.key.clone()),
        headers: headers.into(),
        payload: Some(event.data.clone().into_bytes()),
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub kind: String,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// A store that counts how often customers are read from it.
struct Counted {
    inner: Arc<dyn AggregateStore<Customer>>,
    reads: Arc<AtomicUsize>,
}

#[async_trait]
impl AggregateStore<Customer> for Counted {
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<Customer>>>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.get_many(ids).await
    }

    async fn write(&self, write: Write<Customer>) -> Result<Outcome, StoreError> {
        self.inner.write(write).await
    }

    async fn first_answer(&self, key: &str) -> Result<Option<Customer>, StoreError> {
        self.inner.first_answer(key).await
    }

    async fn keep_answer(
        &self,
        idempotency_key: &str,
        state: &Customer,
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

    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<Customer>>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.inner.pages(requests).await
    }

    async fn restore(&self, states: &[Customer]) -> Result<(), StoreError> {
        self.inner.restore(states).await
    }

    async fn settled(
        &self,
        after: Option<&Settled>,
        limit: usize,
    ) -> Result<Vec<Settled>, StoreError> {
        self.inner.settled(after, limit).await
    }

    async fn remove(&self, seen: &[Settled]) -> Result<u64, StoreError> {
        self.inner.remove(seen).await
    }

    async fn set_back(&self, states: &[(Settled, Customer)]) -> Result<u64, StoreError> {
        self.inner.set_back(states).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.inner.ping().await
    }
}

#[async_trait]
impl Outbox for Counted {
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
