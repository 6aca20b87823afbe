//! A rebuild at an operator's word, with its progress as one JSON object a line.

use std::{convert::Infallible, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    kafka::connection::Kafka,
    rebuild::{Progress, Target, Unlogged},
    shutdown::Shutdown,
    web::problem::Problem,
};

/// Progress lines that may wait for a slow reader; more are dropped, the last one never.
const LINES: usize = 64;

/// One line of what a rebuild answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// It ended early, and why.
    Failed(String),
    /// Everything is rebuilt.
    Finished,
}

/// What a service can rebuild.
#[derive(Clone)]
pub struct Rebuilder {
    targets: Arc<Vec<Arc<dyn Target>>>,
    kafka: Kafka,
    shutdown: Shutdown,
    turn: Arc<Mutex<()>>,
}

impl Rebuilder {
    /// Rebuilds these targets, one after the other.
    #[must_use]
    pub fn new(targets: Vec<Arc<dyn Target>>, kafka: Kafka, shutdown: Shutdown) -> Self {
        Self {
            targets: Arc::new(targets),
            kafka,
            shutdown,
            turn: Arc::default(),
        }
    }

    /// The route `POST /admin/rebuild`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/rebuild", post(start))
            .with_state(self)
    }

    /// Rebuilds everything. `tell` hears of every step.
    ///
    /// # Errors
    /// Why it ended early, as a sentence.
    pub async fn run(&self, mut tell: impl FnMut(Progress) + Send + Sync) -> Result<(), String> {
        for target in self.targets.iter() {
            let done = Arc::clone(target)
                .rebuild(
                    &self.kafka,
                    Unlogged::TakenOut,
                    &self.shutdown.token(),
                    &mut tell,
                )
                .await
                .map_err(|error| format!("{}: {error}", target.name()))?;
            tracing::info!(
                target_name = done.target,
                read = done.read,
                written = done.written,
                refused = done.refused,
                removed = done.removed,
                set_back = done.set_back,
                seconds = done.seconds,
                "rebuilt from the log"
            );
        }
        Ok(())
    }
}

async fn start(State(rebuilder): State<Rebuilder>) -> Response {
    let Ok(turn) = Arc::clone(&rebuilder.turn).try_lock_owned() else {
        return Problem::new(StatusCode::CONFLICT)
            .with_detail("a rebuild is under way already")
            .into_response();
    };
    let (lines, lines_out) = mpsc::channel::<Line>(LINES);
    let shutdown = rebuilder.shutdown.clone();
    // Ends when the operator hangs up: what is rebuilt until then is right, and it can be started again.
    shutdown.spawn(async move {
        let _turn = turn;
        let work = rebuilder.run(|progress| {
            let _ = lines.try_send(Line::Progress(progress));
        });
        let ended = tokio::select! {
            ended = work => ended,
            () = lines.closed() => return,
        };
        let last = match ended {
            Ok(()) => Line::Finished,
            Err(reason) => Line::Failed(reason),
        };
        let _ = lines.send(last).await;
    });
    let body = ReceiverStream::new(lines_out).map(|line| {
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        Ok::<_, Infallible>(Bytes::from(text))
    });
    (
        [(CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(body),
    )
        .into_response()
}
