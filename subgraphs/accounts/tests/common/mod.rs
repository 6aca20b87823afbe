//! Accounts on an embedded store in its own directory, without Kafka. Tests call it without a network.
#![allow(clippy::disallowed_methods, reason = "tests date what they make")]
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

use std::{path::Path, sync::Arc};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    http::{Request, StatusCode, header},
};
use chrono::Utc;
use serde_json::{Value, json};
use tandem_accounts::{
    audit::AuditProjection,
    domain::Customer,
    encoding::PersonalData,
    service,
    stores::{NAMES, Stores},
};
use tandem_authentication::Access;
use tandem_event_path::{
    commands::Gate, outbox::PendingEvent, projection::Projection, sealing::Sealer,
};
use tandem_model::message::{Message, Position};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::{HttpSettings, middleware::with_middleware};
use tandem_store_contract::Counting;
use tempfile::TempDir;
use tower::ServiceExt;

/// The published sample.
pub const SAMPLE: &str = include_str!("../../src/rest/sample-customer.json");

/// The service without its process.
pub struct Accounts {
    pub stores: Stores,
    counted: Arc<Counting<Customer>>,
    /// The routes before any caller's rights are added.
    routes: Router,
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
        let counted = Arc::new(Counting::new(stores.aggregates));
        stores.aggregates = Arc::clone(&counted) as _;
        let routes = service::routes(
            &stores,
            None,
            gate,
            &sealer(),
            PersonalData::Sealed,
            &Shutdown::new(),
        );
        Self {
            router: with_rights(&routes, Access::Open),
            routes,
            stores,
            counted,
            directory,
        }
    }

    /// How many customers were read since the last call.
    pub fn reads(&self) -> usize {
        self.counted.reads().iter().sum()
    }

    /// The same data, opened again.
    pub async fn restart(self) -> Self {
        self.restart_behind(Gate::open()).await
    }

    /// The same data, opened again behind a gate.
    pub async fn restart_behind(self, gate: Gate) -> Self {
        let Self {
            stores,
            counted,
            routes,
            router,
            directory,
        } = self;
        drop((stores, counted, routes, router));
        Self::start_in(directory, gate).await
    }

    pub async fn send(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        Self::send_to(&self.router, method, path, body).await
    }

    async fn send_to(router: &Router, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body.into())
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
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

    /// Like [`Self::graphql`], by a caller with these rights.
    pub async fn graphql_by(&self, access: &Access, query: &str, variables: Value) -> Value {
        let router = with_rights(&self.routes, access.clone());
        let body = json!({"query": query, "variables": variables}).to_string();
        let answer = Self::send_to(&router, "POST", "/graphql", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        answer.json()
    }

    /// The data of an answer without errors.
    pub async fn data(&self, query: &str, variables: Value) -> Value {
        let mut answer = self.graphql(query, variables).await;
        assert!(answer.get("errors").is_none(), "{answer:#}");
        answer["data"].take()
    }

    /// The extensions of the only error of an answer.
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

    /// Does what the audit projection does when all pending events are in the log.
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

fn with_rights(routes: &Router, access: Access) -> Router {
    with_middleware(
        routes.clone().layer(Extension(access)),
        &HttpSettings::default(),
    )
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

/// A pending event as a reader of the log gets it.
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
        published_ms: None,
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
