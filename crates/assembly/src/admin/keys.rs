//! Data keys for operators: the events that wait for a data key, and repairing what the topic of keys has lost.

use std::sync::Arc;

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use tandem_event_path::{
    store::StoreError,
    waiting::{Waiting, WaitingView},
};
use tandem_service::web::problem::Problem;
use utoipa::ToSchema;

use super::documents;

/// Most waiting events in one answer.
const LIMIT: usize = 1_000;

/// Publishes again the keys and tombstones that the topic of keys has lost.
#[async_trait]
pub trait Heals: Send + Sync + 'static {
    /// Publishes what is missing. Returns how many messages were published.
    ///
    /// # Errors
    /// If the store or the topic is unavailable.
    async fn heal(&self) -> Result<u64, StoreError>;
}

/// What a healing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Healed {
    /// Messages published.
    pub published: u64,
}

/// The data keys of one service.
#[derive(Clone)]
pub struct KeyOperations {
    waiting: Vec<Waiting>,
    heals: Option<Arc<dyn Heals>>,
}

impl KeyOperations {
    /// Lists these waiting events. `heals` publishes lost keys, in the service that owns the keys.
    #[must_use]
    pub fn new(waiting: Vec<Waiting>, heals: Option<Arc<dyn Heals>>) -> Self {
        Self { waiting, heals }
    }

    /// The routes `GET /admin/keys/waiting` and `POST /admin/keys/publish`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/keys/waiting", get(list))
            .route("/admin/keys/publish", post(publish))
            .with_state(self)
    }
}

/// Events that wait for their data key, 1000 of them at most.
#[utoipa::path(
    get,
    path = "/admin/keys/waiting",
    operation_id = "waitingEvents",
    responses(
        (status = 200, description = "The events.", body = Vec<documents::WaitingView>),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(operations): State<KeyOperations>,
) -> Result<Json<Vec<WaitingView>>, Response> {
    let mut all = Vec::new();
    for waiting in &operations.waiting {
        let some = waiting.list(LIMIT.saturating_sub(all.len())).await;
        all.extend(some.map_err(|error| unavailable(&error))?);
    }
    Ok(Json(all))
}

/// Publishes again the data keys that the topic of keys has lost.
///
/// Of accounts alone.
#[utoipa::path(
    post,
    path = "/admin/keys/publish",
    operation_id = "publishKeys",
    responses(
        (status = 200, description = "How many.", body = Healed),
        (status = 404, description = "This service does not publish data keys.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn publish(
    State(operations): State<KeyOperations>,
) -> Result<Json<Healed>, Response> {
    let Some(heals) = operations.heals.clone() else {
        return Err(Problem::new(StatusCode::NOT_FOUND)
            .with_detail("this service does not publish data keys: accounts does")
            .into_response());
    };
    // Continues when the caller disconnects.
    match tokio::spawn(async move { heals.heal().await }).await {
        Ok(Ok(published)) => Ok(Json(Healed { published })),
        Ok(Err(error)) => Err(unavailable(&error)),
        Err(_) => Err(Problem::internal().into_response()),
    }
}

fn unavailable(error: &StoreError) -> Response {
    Problem::unavailable(error.to_string()).into_response()
}
