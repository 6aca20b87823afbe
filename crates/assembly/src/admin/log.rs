//! The logs as an operator sees them: whether they are those that the store was made from, taking them as they are, and writing to
//! them what they have lost.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tandem_event_path::{
    log_memory::{Alarm, LogWatch},
    log_restore::RestoresLog,
};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::problem::Problem;
use tokio::sync::mpsc;

use super::{
    keys::Heals,
    rebuild::{Done, Line, stream},
};

/// The logs of one service.
#[derive(Clone)]
pub struct LogOffice {
    watch: LogWatch,
    restores: Arc<dyn RestoresLog>,
    heals: Option<Arc<dyn Heals>>,
    shutdown: Shutdown,
}

impl LogOffice {
    /// Tells of what is watched, and restores the service's own log. What is lost of data keys is published first, if `heals` does so.
    #[must_use]
    pub fn new(
        watch: LogWatch,
        restores: Arc<dyn RestoresLog>,
        heals: Option<Arc<dyn Heals>>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            watch,
            restores,
            heals,
            shutdown,
        }
    }

    /// The routes `GET /admin/log`, `POST /admin/log/accept` and `POST /admin/log/restore`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/log", get(status))
            .route("/admin/log/accept", post(accept))
            .route("/admin/log/restore", post(restore))
            .with_state(self)
    }

    async fn restore(&self, lines: &mpsc::Sender<Line>) -> Result<u64, String> {
        if let Some(heals) = &self.heals {
            heals.heal().await.map_err(|error| error.to_string())?;
        }
        let restored = self
            .restores
            .restore(&self.shutdown, &mut |progress| {
                let _ = lines.try_send(Line::Progress(progress));
            })
            .await;
        restored.map_err(|error| error.to_string())
    }
}

async fn status(State(office): State<LogOffice>) -> Result<Json<Vec<Alarm>>, Response> {
    office.watch.alarms().map(Json).ok_or_else(|| {
        Problem::unavailable("the logs were not looked at yet; ask again in a moment")
            .into_response()
    })
}

async fn accept(State(office): State<LogOffice>) -> Result<Json<Vec<Alarm>>, Response> {
    match office.watch.accept().await {
        Ok(accepted) => {
            tracing::warn!(
                ?accepted,
                "the logs are taken as they are, as an operator ordered"
            );
            Ok(Json(accepted))
        }
        Err(error) => Err(Problem::unavailable(error.to_string()).into_response()),
    }
}

async fn restore(State(office): State<LogOffice>) -> Response {
    let (lines, lines_out) = mpsc::channel::<Line>(64);
    office.shutdown.clone().spawn(async move {
        let line = match office.restore(&lines).await {
            Ok(restored) => {
                tracing::warn!(restored, "what the log lacked was written to it");
                Line::Done(Done {
                    restored,
                    ..Done::default()
                })
            }
            Err(reason) => Line::Failed(reason),
        };
        let _ = lines.send(line).await;
    });
    stream(lines_out)
}
