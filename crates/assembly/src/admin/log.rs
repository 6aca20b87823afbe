//! The logs for operators: whether they are the logs that the store was made from, accepting them, and writing to them
//! what they have lost.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tandem_event_path::{
    log_memory::{Alarm, LogView, LogWatch},
    log_restore::RestoresLog,
    store::StoreError,
};
use tandem_runtime::{clock::Instant, shutdown::Shutdown};
use tandem_service::web::problem::Problem;
use tokio::sync::{Mutex, mpsc};

use super::{
    documents,
    keys::Heals,
    rebuild::{Done, Line, stream},
};

/// The time limit for Kafka and the store to report on all partitions.
const LOOK: Duration = Duration::from_secs(8);

/// How long an answer is cached. Many viewers of the page then cost Kafka and the store no more than one.
const STANDS: Duration = Duration::from_secs(2);

/// The logs of one service.
#[derive(Clone)]
pub struct LogOperations {
    watch: LogWatch,
    restores: Arc<dyn RestoresLog>,
    heals: Option<Arc<dyn Heals>>,
    shutdown: Shutdown,
    last: Arc<Mutex<Option<Looked>>>,
}

/// When the logs were read, and what was found.
type Looked = (Instant, Vec<LogView>);

impl LogOperations {
    /// Reports on the watched logs, and restores the service's own log. `heals` publishes lost data keys first.
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
            last: Arc::default(),
        }
    }

    /// The routes `GET /admin/log`, `GET /admin/log/partitions`, `POST /admin/log/accept` and
    /// `POST /admin/log/restore`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/log", get(status))
            .route("/admin/log/partitions", get(partitions))
            .route("/admin/log/accept", post(accept))
            .route("/admin/log/restore", post(restore))
            .with_state(self)
    }

    /// The current logs, or those of a moment ago. Concurrent requests wait for the same answer.
    async fn logs(&self) -> Result<Vec<LogView>, StoreError> {
        let clock = self.shutdown.clock();
        let mut last = self.last.lock().await;
        if let Some((at, logs)) = last.as_ref()
            && clock.since(*at) < STANDS
        {
            return Ok(logs.clone());
        }
        let logs = self.watch.logs().await?;
        *last = Some((clock.instant(), logs.clone()));
        Ok(logs)
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

/// In what the logs differ from those that the store was made from.
#[utoipa::path(
    get,
    path = "/admin/log",
    operation_id = "logAlarms",
    responses(
        (status = 200, description = "Nothing, where all is well.", body = Vec<documents::Alarm>),
        (status = 503, description = "The logs were not looked at yet.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn status(
    State(operations): State<LogOperations>,
) -> Result<Json<Vec<Alarm>>, Response> {
    operations.watch.alarms().map(Json).ok_or_else(|| {
        Problem::unavailable("the logs were not looked at yet; ask again in a moment")
            .into_response()
    })
}

/// Each partition of the logs: its ends, what the store remembers of it, and how much is unread.
#[utoipa::path(
    get,
    path = "/admin/log/partitions",
    operation_id = "logPartitions",
    responses(
        (status = 200, description = "The logs.", body = Vec<documents::LogView>),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn partitions(
    State(operations): State<LogOperations>,
) -> Result<Json<Vec<LogView>>, Response> {
    let clock = operations.shutdown.clock();
    match clock.timeout(LOOK, operations.logs()).await {
        Ok(Ok(logs)) => Ok(Json(logs)),
        Ok(Err(error)) => Err(Problem::unavailable(error.to_string()).into_response()),
        Err(_) => Err(Problem::unavailable(format!(
            "Kafka did not tell of the partitions within {} s; ask again in a moment",
            LOOK.as_secs()
        ))
        .into_response()),
    }
}

/// Takes the logs as they are for those that the store is made from.
#[utoipa::path(
    post,
    path = "/admin/log/accept",
    operation_id = "acceptLogs",
    responses(
        (status = 200, description = "The alarms that this ended.", body = Vec<documents::Alarm>),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn accept(
    State(operations): State<LogOperations>,
) -> Result<Json<Vec<Alarm>>, Response> {
    match operations.watch.accept().await {
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

/// Writes to the service's own log what its store holds and the log lacks, as events that are marked as restored.
#[utoipa::path(
    post,
    path = "/admin/log/restore",
    operation_id = "restoreLog",
    responses(
        (status = 200, description = "A line for each step, as long as it goes on.", content_type = "application/x-ndjson"),
    )
)]
pub(super) async fn restore(State(operations): State<LogOperations>) -> Response {
    let (lines, lines_out) = mpsc::channel::<Line>(64);
    operations.shutdown.clone().spawn(async move {
        let line = match operations.restore(&lines).await {
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
