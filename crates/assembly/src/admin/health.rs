//! Health with its reasons, for operators only. `/actuator/health` is open to probes, so it contains no ids of
//! customers or orders, and the gateway does not pass it on.

use axum::{Json, Router, extract::State, routing::get};
use tandem_service::web::actuator::{Health, HealthReport};

use super::documents;

/// The route `GET /admin/health`. Like `/actuator/health`, but always with status 200.
pub fn routes(health: &Health) -> Router {
    Router::new()
        .route("/admin/health", get(show))
        .with_state(health.clone())
}

/// Health with reasons: as `/actuator/health`, and 200 however ill the service is.
#[utoipa::path(
    get,
    path = "/admin/health",
    operation_id = "health",
    responses(
        (status = 200, description = "The state of the whole and of each component.", body = documents::HealthReport),
    )
)]
pub(super) async fn show(State(health): State<Health>) -> Json<HealthReport> {
    Json(health.report().await.for_operators())
}
