//! A rebuild at an operator's word, with its progress as one JSON object a line.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures::StreamExt;
use serde::{Deserialize, Serialize};
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

/// Progress lines that may wait for a slow reader; more are dropped, the last one never.
const LINES: usize = 64;
/// Copies made at once.
const SOME: usize = 200;

/// What is asked of a rebuild. It never removes anything: that is an order of its own.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wanted {
    /// Whether what is stored and not in the log is answered too, whole and sealed, so that it can be kept.
    pub copies: bool,
    /// Whether entries of audit trails that differ are made as the log has them.
    pub replace_entries: bool,
}

/// One line of what a rebuild answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// How far it is.
    Progress(Progress),
    /// Something that is stored and not in the log.
    Lacking(Copy),
    /// What was ordered is done.
    Done(Done),
    /// It ended early, and why.
    Failed(String),
    /// Everything is rebuilt.
    Finished,
}

/// Why something is not as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Lack {
    /// The log does not know it.
    Unknown,
    /// It is ahead of the log.
    Ahead,
    /// The log has another content.
    Differing,
}

/// Something stored, with which it can be taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copy {
    /// What it is part of.
    pub target: String,
    /// Why it is not as the log has it.
    pub lack: Lack,
    /// Its id; empty for an entry that differs.
    pub id: String,
    /// Its revision.
    pub revision: i64,
    /// Tells this writing of it from every other, as base64.
    pub version: String,
    /// Its content, sealed with the sealing key; `None` if it is no longer stored.
    pub sealed: Option<String>,
}

/// What is to be removed or set back (exactly what was seen, and nothing that was written since; contents are not needed), or what
/// is to be taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Copies {
    /// As a rebuild answered them.
    pub copies: Vec<Copy>,
}

/// What removing or taking back did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Removed.
    pub removed: u64,
    /// Set back to what the log tells last.
    pub revert: u64,
    /// Taken back.
    pub taken_back: u64,
    /// Written to the log.
    #[serde(default)]
    pub restored: u64,
}

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
}

/// The place that a copy is sealed for.
const COPY: &[u8] = b"a copy of what the log lacks";

impl Rebuilder {
    /// Rebuilds these targets, one after the other. Copies of what is stored are sealed.
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
        }
    }

    /// The same; what the topic of data keys has lost is published again before.
    #[must_use]
    pub fn healing(mut self, heals: Arc<dyn Heals>) -> Self {
        self.heals = Some(heals);
        self
    }

    /// The same; a log that this does not trust replaces nothing but what is older.
    #[must_use]
    pub fn watching(mut self, watch: LogWatch) -> Self {
        self.watch = Some(watch);
        self
    }

    /// The routes `POST /admin/rebuild`, `POST /admin/rebuild/removals` and `POST /admin/rebuild/copies`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/rebuild", post(start))
            .route("/admin/rebuild/removals", post(remove))
            .route("/admin/rebuild/copies", post(take_back))
            .with_state(self)
    }

    /// Rebuilds everything. `tell` hears of every step; what is stored and not in the log comes by `copies`, if it is wanted.
    ///
    /// # Errors
    /// Why it ended early, as a sentence.
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
                revert = done.revert,
                seconds = done.seconds,
                "rebuilt from the log"
            );
            // Steps may have been dropped; how it ended is not.
            let _ = copies.send(Line::Progress(done)).await;
            if wanted.copies {
                let copied = self.copy(target.as_ref(), outcome.lacking, copies).await;
                copied.map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    /// Answers copies of what the log lacks.
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

async fn remove(
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
    // Goes on when the operator hangs up: it does exactly what was ordered. To set back takes a reading of the log, which takes longer than
    // a request may; so the answer is a stream.
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

async fn take_back(
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

async fn start(State(rebuilder): State<Rebuilder>, body: Bytes) -> Response {
    // Nothing is asked by an empty body, as it was sent before anything could be.
    let wanted = match body.is_empty() {
        true => Ok(Wanted::default()),
        false => serde_json::from_slice(&body),
    };
    let wanted: Wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return refused(error.to_string()),
    };
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
        let tell = |progress: Progress| {
            let _ = lines.try_send(Line::Progress(progress));
        };
        let work = rebuilder.run(wanted, tell, &lines);
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
    stream(lines_out)
}

/// An answer that goes on as long as there are lines.
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
