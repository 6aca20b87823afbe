//! The operator's routes for a rebuild. In the foreground, the answer streams the progress as one JSON object per line.
//! In the background, the progress can be queried.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use tandem_event_path::{
    log::Log,
    log_memory::LogWatch,
    rebuild::{Entries, Lacking, Order, Progress, Target},
    sealing::Sealer,
    store::{PublishedRow, StoreError},
};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::{json::ProblemJson, problem::Problem};
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::keys::Heals;
use runs::{Ended, Run, Runs};

mod lines;
mod runs;
#[cfg(test)]
mod tests;

pub use lines::{Copies, Copy, Done, Lack, Line, Wanted};
pub use runs::{RebuildState, RebuildView};

/// Progress lines that are buffered for a slow reader. Further ones are dropped, except the last.
const LINES: usize = 64;
/// How many copies are made at once.
const SOME: usize = 200;

/// What a service can rebuild.
#[derive(Clone)]
pub struct Rebuilder {
    targets: Arc<Vec<Arc<dyn Target>>>,
    log: Arc<dyn Log>,
    sealer: Sealer,
    shutdown: Shutdown,
    heals: Option<Arc<dyn Heals>>,
    watch: Option<LogWatch>,
    turn: Arc<Mutex<()>>,
    runs: Runs,
}

/// The context that a copy is sealed for.
const COPY: &[u8] = b"a copy of what the log lacks";

impl Rebuilder {
    /// Rebuilds these targets one after the other. Copies of stored data are sealed.
    #[must_use]
    pub fn new(
        targets: Vec<Arc<dyn Target>>,
        log: Arc<dyn Log>,
        sealer: Sealer,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            targets: Arc::new(targets),
            log,
            sealer,
            shutdown,
            heals: None,
            watch: None,
            turn: Arc::default(),
            runs: Runs::default(),
        }
    }

    /// Publishes what the topic of data keys has lost before a rebuild.
    #[must_use]
    pub fn healing(mut self, heals: Arc<dyn Heals>) -> Self {
        self.heals = Some(heals);
        self
    }

    /// Watches the log. While the log is not trusted, a rebuild replaces only older data.
    #[must_use]
    pub fn watching(mut self, watch: LogWatch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The routes `/admin/rebuild`, `POST /admin/rebuild/stop`, `POST /admin/rebuild/removals` and
    /// `POST /admin/rebuild/copies`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/rebuild", get(show).post(start))
            .route("/admin/rebuild/stop", post(stop))
            .route("/admin/rebuild/removals", post(remove))
            .route("/admin/rebuild/copies", post(take_back))
            .with_state(self)
    }

    /// Rebuilds everything. `tell` gets every step of the progress. `copies` gets what is stored but not in the log, if
    /// requested.
    ///
    /// # Errors
    /// A message with the reason, if it ended early.
    pub async fn run(
        &self,
        wanted: Wanted,
        mut tell: impl FnMut(Progress) + Send + Sync,
        copies: &mpsc::Sender<Line>,
    ) -> Result<(), String> {
        if let Some(heals) = &self.heals {
            let healed = heals.heal().await;
            healed
                .map_err(|error| format!("the topic of data keys could not be healed: {error}"))?;
        }
        for target in self.targets.iter() {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", target.name());
            let watch = self.watch.as_ref();
            let order = Order {
                looks: true,
                entries: if wanted.replace_entries {
                    Entries::Replaced
                } else {
                    Entries::Left
                },
                distrusts: watch.is_some_and(|watch| !watch.trusts(target.log())),
                restores: false,
            };
            let outcome = Arc::clone(target)
                .rebuild(&self.log, order, &self.shutdown, &mut tell)
                .await
                .map_err(|error| failed(&error))?;
            let done = outcome.progress;
            tracing::info!(
                target_name = done.target,
                read = done.read,
                written = done.written,
                refused = done.refused,
                waiting = done.waiting,
                unknown = done.unknown,
                ahead = done.ahead,
                differing = done.differing,
                only_stored = done.only_stored,
                revert = done.revert,
                seconds = done.seconds,
                "rebuilt from the log"
            );
            self.runs.note(&done);
            // Progress lines may have been dropped, but the final one is always sent.
            let _ = copies.send(Line::Progress(done)).await;
            if wanted.copies {
                let copied = self.copy(target.as_ref(), outcome.lacking, copies).await;
                copied.map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    /// Sends copies of what the log lacks.
    async fn copy(
        &self,
        target: &dyn Target,
        lacking: Vec<Lacking>,
        copies: &mpsc::Sender<Line>,
    ) -> Result<(), StoreError> {
        for some in lacking.chunks(SOME) {
            let seen: Vec<PublishedRow> = some.iter().filter_map(seen_of).collect();
            let mut contents = target.keep_copies(&seen).await?.into_iter();
            for lacking in some {
                let content = match lacking {
                    Lacking::Differing(content) => Some(content.clone()),
                    _ => contents.next().flatten(),
                };
                let lack = match lacking {
                    Lacking::Unknown(_) => Lack::Unknown,
                    Lacking::Ahead(_) => Lack::Ahead,
                    Lacking::Differing(_) => Lack::Differing,
                };
                let seen = seen_of(lacking);
                let copy = Copy {
                    target: target.name().to_owned(),
                    lack,
                    revision: seen.as_ref().map_or(0, |seen| seen.revision),
                    version: STANDARD.encode(seen.as_ref().map_or(&[][..], |seen| &seen.version)),
                    id: seen.map(|seen| seen.id).unwrap_or_default(),
                    sealed: content.map(|content| self.sealer.seal(&content, COPY)),
                };
                if copies.send(Line::Lacking(copy)).await.is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn take_out(
        &self,
        unknown: BTreeMap<String, Vec<PublishedRow>>,
        ahead: BTreeMap<String, Vec<PublishedRow>>,
    ) -> Result<Done, String> {
        let mut done = Done::default();
        for (name, seen) in unknown {
            let removed = self.target(&name)?.take_out(&seen).await;
            done.removed += removed.map_err(|error| format!("{name}: {error}"))?;
        }
        for (name, seen) in ahead {
            let target = Arc::clone(self.target(&name)?);
            let revert = target
                .back_to_the_log(&self.log, seen, &self.shutdown)
                .await;
            done.revert += revert.map_err(|error| format!("{name}: {error}"))?;
        }
        tracing::warn!(
            removed = done.removed,
            revert = done.revert,
            "what the log lacks was removed and set back, as an operator ordered"
        );
        Ok(done)
    }

    fn target(&self, name: &str) -> Result<&Arc<dyn Target>, String> {
        let found = self.targets.iter().find(|target| target.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.targets.iter().map(|target| target.name()).collect();
            format!("target is {name:?}; this service has {}", names.join(", "))
        })
    }
}

fn seen_of(lacking: &Lacking) -> Option<PublishedRow> {
    match lacking {
        Lacking::Unknown(seen) | Lacking::Ahead(seen) => Some(seen.clone()),
        Lacking::Differing(_) => None,
    }
}

fn refused(detail: String) -> Response {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY)
        .with_detail(detail)
        .into_response()
}

/// Removes what the log lacks and sets back what is ahead of it: exactly what a rebuild answered, and nothing that was written since.
///
/// Who orders this keeps the copies that the rebuild answered: they alone take it back.
#[utoipa::path(
    post,
    path = "/admin/rebuild/removals",
    operation_id = "removeWhatTheLogLacks",
    request_body = Copies,
    responses(
        (status = 200, description = "One line, when it is done.", content_type = "application/x-ndjson"),
        (status = 422, description = "A target or a version is none.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn remove(
    State(rebuilder): State<Rebuilder>,
    ProblemJson(removal): ProblemJson<Copies>,
) -> Result<Response, Response> {
    let mut unknown: BTreeMap<String, Vec<PublishedRow>> = BTreeMap::new();
    let mut ahead: BTreeMap<String, Vec<PublishedRow>> = BTreeMap::new();
    for copy in removal.copies {
        rebuilder.target(&copy.target).map_err(refused)?;
        let version = STANDARD.decode(&copy.version);
        let version =
            version.map_err(|error| refused(format!("version of {}: {error}", copy.id)))?;
        let seen = PublishedRow {
            id: copy.id,
            revision: copy.revision,
            version,
        };
        match copy.lack {
            Lack::Unknown => unknown.entry(copy.target).or_default().push(seen),
            Lack::Ahead => ahead.entry(copy.target).or_default().push(seen),
            Lack::Differing => {}
        }
    }
    // Continues when the operator disconnects, because it does exactly what was ordered. A reset needs to read the log,
    // which takes longer than a request may. So the answer is a stream.
    let (lines, lines_out) = mpsc::channel::<Line>(1);
    rebuilder.shutdown.clone().spawn(async move {
        let line = match rebuilder.take_out(unknown, ahead).await {
            Ok(done) => Line::Done(done),
            Err(reason) => Line::Failed(reason),
        };
        let _ = lines.send(line).await;
    });
    Ok(stream(lines_out))
}

/// Takes back what was removed.
#[utoipa::path(
    post,
    path = "/admin/rebuild/copies",
    operation_id = "takeBack",
    request_body = Copies,
    responses(
        (status = 200, description = "How many.", body = Done),
        (status = 422, description = "A copy does not open.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn take_back(
    State(rebuilder): State<Rebuilder>,
    ProblemJson(Copies { copies }): ProblemJson<Copies>,
) -> Result<Json<Done>, Response> {
    let mut contents: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    for copy in &copies {
        let Some(sealed) = &copy.sealed else { continue };
        let content = rebuilder.sealer.open(sealed, COPY);
        let content = content.map_err(|error| {
            refused(format!(
                "the copy of {} {} does not open: {error}",
                copy.target, copy.id
            ))
        })?;
        contents.entry(&copy.target).or_default().push(content);
    }
    let mut done = Done::default();
    for (name, contents) in contents {
        let target = rebuilder.target(name).map_err(refused)?;
        let taken = target.take_back(&contents).await;
        done.taken_back += taken.map_err(|error| unavailable(&error))?;
    }
    Ok(Json(done))
}

fn unavailable(error: &dyn std::fmt::Display) -> Response {
    Problem::unavailable(error.to_string()).into_response()
}

/// Rebuilds the store from the log. It removes nothing.
///
/// Without `background` the answer is a line of JSON (application/x-ndjson) for each step, and it ends when the caller goes away.
#[utoipa::path(
    post,
    path = "/admin/rebuild",
    operation_id = "rebuild",
    request_body = Option<Wanted>,
    responses(
        (status = 200, description = "A line for each step, as long as it goes on.", content_type = "application/x-ndjson"),
        (status = 202, description = "It goes on in the background.", body = RebuildView),
        (status = 409, description = "A rebuild is under way already.", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "`background` and `copies` together.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn start(State(rebuilder): State<Rebuilder>, body: Bytes) -> Response {
    // An empty body selects the defaults. Clients sent it before there were options.
    let wanted = match body.is_empty() {
        true => Ok(Wanted::default()),
        false => serde_json::from_slice(&body),
    };
    let wanted: Wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return refused(error.to_string()),
    };
    if wanted.background && wanted.copies {
        let nobody = "`copies` are answered line by line: leave `background` out, or `copies`";
        return refused(nobody.to_owned());
    }
    let Ok(turn) = Arc::clone(&rebuilder.turn).try_lock_owned() else {
        return Problem::new(StatusCode::CONFLICT)
            .with_detail("a rebuild is under way already")
            .into_response();
    };
    let clock = rebuilder.shutdown.clock();
    let names = rebuilder.targets.iter().map(|target| target.name());
    let run = rebuilder.runs.begin(clock, names);
    let view = rebuilder.runs.view();
    let (lines, lines_out) = mpsc::channel::<Line>(LINES);
    let shutdown = rebuilder.shutdown.clone();
    shutdown.spawn(async move {
        let _turn = turn;
        let ended = rebuilder.until_stopped(wanted, &run, &lines).await;
        rebuilder.runs.end(rebuilder.shutdown.clock(), &ended);
        let last = match ended {
            Ended::Finished => Line::Finished,
            Ended::Failed(reason) => Line::Failed(reason),
            Ended::Stopped(why) => Line::Failed(why.to_owned()),
        };
        let _ = lines.send(last).await;
    });
    if wanted.background {
        return (StatusCode::ACCEPTED, Json(view)).into_response();
    }
    stream(lines_out)
}

impl Rebuilder {
    /// Rebuilds until it is done or somebody stops it. A rebuild in the foreground also ends when the operator
    /// disconnects. What was rebuilt until then is correct, and a rebuild can be started again.
    async fn until_stopped(&self, wanted: Wanted, run: &Run, lines: &mpsc::Sender<Line>) -> Ended {
        let tell = |progress: Progress| {
            self.runs.note(&progress);
            let _ = lines.try_send(Line::Progress(progress));
        };
        let left = async {
            match wanted.background {
                true => std::future::pending().await,
                false => lines.closed().await,
            }
        };
        tokio::select! {
            ended = self.run(wanted, tell, lines) => match ended {
                Ok(()) => Ended::Finished,
                Err(reason) => Ended::Failed(reason),
            },
            () = run.stopped() => Ended::Stopped("an operator stopped it"),
            () = left => Ended::Stopped("whoever had asked for it went away"),
            () = self.shutdown.requested() => Ended::Stopped("the service is stopping"),
        }
    }
}

/// How far the rebuild is that was begun last since this process started; null if none was.
#[utoipa::path(
    get,
    path = "/admin/rebuild",
    operation_id = "rebuildProgress",
    responses(
        (status = 200, description = "The rebuild, which may have ended.", body = Option<RebuildView>),
    )
)]
pub(super) async fn show(State(rebuilder): State<Rebuilder>) -> Json<Option<RebuildView>> {
    Json(rebuilder.runs.view())
}

/// Stops the rebuild that is under way, whoever began it. What is rebuilt until then is right.
#[utoipa::path(
    post,
    path = "/admin/rebuild/stop",
    operation_id = "stopRebuild",
    responses(
        (status = 202, description = "It ends in a moment.", body = RebuildView),
        (status = 409, description = "None is under way.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn stop(State(rebuilder): State<Rebuilder>) -> Response {
    match rebuilder.runs.stop() {
        Some(view) => (StatusCode::ACCEPTED, Json(view)).into_response(),
        None => Problem::conflict("no rebuild is under way").into_response(),
    }
}

/// An answer that streams the lines until there are no more.
pub(super) fn stream(lines: mpsc::Receiver<Line>) -> Response {
    let body = ReceiverStream::new(lines).map(|line| {
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
