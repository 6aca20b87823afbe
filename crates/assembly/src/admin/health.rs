//! Health with reasons, behind the operator's token: `/actuator/health` is open to probes, so it has no ids of customers or orders, and a
//! gateway hands it on to nobody.

use axum::{Json, Router, extract::State, routing::get};
use tandem_service::web::actuator::{Health, HealthReport};

use super::documents;

/// The route `GET /admin/health`: as `/actuator/health`, and 200 however ill the service is.
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
