//! The live page, and its buttons that kill a process. The buttons work only under `tandem up` on loopback without
//! authentication, because that is a developer's own machine.

use std::path::PathBuf;
use std::sync::Arc;

use hive_router::ntex::http::{StatusCode, header};
use hive_router::ntex::web::{self, HttpRequest, HttpResponse, ServiceConfig};
use hive_router::tracing;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tandem_web::{LIVE_PAGE, PAGE_POLICY};

use super::pages::{page, read};
use super::problem::problem;
use crate::running::Found;

/// The services that may be killed.
const SERVICES: [&str; 3] = ["accounts", "orders", "broker"];

/// Kills processes of the `up` that started this gateway, where that is allowed.
#[derive(Debug, Clone, Default)]
pub(super) struct Kills {
    /// The data directory of that `up`. `None` where nothing may be killed.
    directory: Option<Arc<PathBuf>>,
}

/// Why nothing was killed.
#[derive(Debug, thiserror::Error)]
enum NotKilled {
    #[error(
        "nothing is killed here: only under `tandem up` on loopback, without authentication, by the page that it serves"
    )]
    Off,
    #[error("`{0}` is none of accounts, orders and broker")]
    Unknown(String),
    #[error("{0} does not run in this moment: wait until `tandem up` has started it again")]
    Unavailable(String),
}

impl Kills {
    /// Allows the processes of the `up` that runs on this data directory, if that `up` is this process's parent.
    pub(super) fn of_up(directory: PathBuf) -> Self {
        Self {
            directory: Some(Arc::new(directory)),
        }
    }

    fn kill(&self, service: &str) -> Result<u32, NotKilled> {
        let directory = self.directory.as_ref().ok_or(NotKilled::Off)?;
        if !SERVICES.contains(&service) {
            return Err(NotKilled::Unknown(service.to_owned()));
        }
        let away = || NotKilled::Unavailable(service.to_owned());
        let found = Found::in_directory(directory);
        let running = found.alive().ok_or_else(away)?;
        let is_parent = rustix::process::getppid()
            .is_some_and(|parent| u32::try_from(parent.as_raw_nonzero().get()) == Ok(running.pid));
        if !is_parent {
            return Err(NotKilled::Off);
        }
        let id = running.processes.get(service).copied().ok_or_else(away)?;
        let process = i32::try_from(id).ok().and_then(Pid::from_raw);
        let process = process.ok_or_else(away)?;
        // The id cannot belong to another process yet: `up` waits for its children and removes ended ones from the
        // file.
        kill_process(process, Signal::KILL).map_err(|_| away())?;
        tracing::warn!(service, id, "killed, as the live page was asked to");
        Ok(id)
    }
}

pub(super) fn routes(app: &mut ServiceConfig) {
    app.service(web::resource("/live").route(read().to(show)));
    app.service(web::resource("/ui/live/here.json").route(read().to(here)));
    app.service(web::resource("/ui/live/kill/{service}").route(web::post().to(kill)));
}

async fn show() -> HttpResponse {
    page(StatusCode::OK, PAGE_POLICY, LIVE_PAGE.to_owned())
}

/// What the page may do here.
async fn here(kills: web::types::State<Kills>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(json!({ "kills": kills.directory.is_some() }).to_string())
}

/// Accepts only JSON, which a page of another origin cannot send without a preflight. The front door also refuses other
/// origins.
async fn kill(
    request: HttpRequest,
    service: web::types::Path<String>,
    kills: web::types::State<Kills>,
) -> HttpResponse {
    let is_json = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !is_json {
        return problem(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            request.path(),
            "send `{}` as application/json",
        );
    }
    match kills.kill(&service) {
        Ok(id) => HttpResponse::Ok()
            .content_type("application/json")
            .body(json!({ "pid": id }).to_string()),
        Err(error) => {
            let status = match error {
                NotKilled::Off => StatusCode::FORBIDDEN,
                NotKilled::Unknown(_) => StatusCode::NOT_FOUND,
                NotKilled::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            };
            problem(status, request.path(), &error.to_string())
        }
    }
}
