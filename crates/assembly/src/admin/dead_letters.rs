//! Routes to list dead letters, retry them in order, and discard them. The dead letter topic gets a record of each
//! retry and discard.
//!
//! Retrying or discarding many letters is a background job. It continues when its caller disconnects, and any operator
//! can query its progress.

mod operations;
mod retry;
mod views;

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tandem_authentication::Access;
use tandem_event_path::store::DeadLetter;
use tandem_service::web::{json::ProblemJson, problem::Problem};

use super::{documents, may_see_persons};

pub use operations::DeadLetterOperations;
pub use retry::{Retry, RetryError, RetryProjection};
pub use tandem_event_path::{
    dead_letter_topic::dead_letter_topic,
    store::{DeadLetterFilter, LetterId},
};
pub use views::{JobView, LetterPage, LetterView, ListRequest, Work};

/// Letters per page, unless the caller requests fewer.
const PAGE: usize = 200;

impl DeadLetterOperations {
    /// The routes `/admin/dead-letters`, and below it `letter`, `retry`, `discard`, `discard-all` and `job`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/dead-letters", get(list))
            .route("/admin/dead-letters/letter", get(show))
            .route("/admin/dead-letters/retry", post(retry))
            .route("/admin/dead-letters/discard", post(discard))
            .route("/admin/dead-letters/discard-all", post(discard_all))
            .route("/admin/dead-letters/job", get(job))
            .with_state(self)
    }
}

fn away(error: &dyn std::error::Error) -> Response {
    Problem::unavailable(error.to_string()).into_response()
}

/// The value of `after` for the page that follows a letter.
fn cursor(id: &LetterId) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(id).unwrap_or_default())
}

fn read_cursor(text: &str) -> Option<LetterId> {
    let json = URL_SAFE_NO_PAD.decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Dead letters, without their bodies.
#[utoipa::path(
    get,
    path = "/admin/dead-letters",
    operation_id = "deadLetters",
    params(ListRequest),
    responses(
        (status = 200, description = "A page of them, in order of consumer, topic, partition and offset.", body = LetterPage),
        (status = 400, description = "`after` is no cursor.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn list(
    State(operations): State<DeadLetterOperations>,
    Query(request): Query<ListRequest>,
) -> Result<Json<LetterPage>, Response> {
    let ListRequest {
        consumer,
        key,
        after,
        limit,
    } = request;
    let filter = DeadLetterFilter { consumer, key };
    let after = match after.as_deref().map(read_cursor) {
        Some(None) => {
            return Err(Problem::new(StatusCode::BAD_REQUEST)
                .with_detail("`after` is no cursor; take a page's `next`")
                .into_response());
        }
        after => after.flatten(),
    };
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE);
    let letters = &operations.inner.letters;
    // One more than requested shows whether there is another page.
    let mut found = letters
        .dead_letters(&filter, after.as_ref(), limit + 1)
        .await
        .map_err(|error| away(&error))?;
    let has_more = found.len() > limit;
    found.truncate(limit);
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|last| cursor(&last.id()));
    let total = letters.count(&filter).await.map_err(|error| away(&error))?;
    let without_body = |letter: DeadLetter| DeadLetter {
        payload: None,
        ..letter
    };
    Ok(Json(LetterPage {
        letters: found
            .into_iter()
            .map(|letter| LetterView::from(without_body(letter)))
            .collect(),
        total,
        next,
    }))
}

/// One dead letter whole.
///
/// Its body is as its topic has it: what events seal stays sealed. It is shown to who has the scope `customers:read` too, or the sealing key:
/// what somebody else wrote there, or a service that does not seal, may tell of a person in clear.
#[utoipa::path(
    get,
    path = "/admin/dead-letters/letter",
    operation_id = "deadLetter",
    params(documents::LetterId),
    responses(
        (status = 200, description = "The letter.", body = LetterView),
        (status = 404, description = "There is no such dead letter.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(operations): State<DeadLetterOperations>,
    access: Option<Extension<Access>>,
    Query(id): Query<LetterId>,
) -> Result<Json<LetterView>, Response> {
    let is_shown = access.is_none_or(|Extension(access)| may_see_persons(&access));
    let found = operations.inner.letters.dead_letter(&id).await;
    match found.map_err(|error| away(&error))? {
        Some(letter) if is_shown => Ok(Json(letter.into())),
        Some(letter) => Ok(Json(LetterView::from(letter).without_body())),
        None => Err(Problem::not_found("there is no such dead letter").into_response()),
    }
}

/// Starts a job with the letters that match a filter. If there are none, the answer says so.
async fn begin(
    operations: DeadLetterOperations,
    work: Work,
    filter: DeadLetterFilter,
) -> Result<(StatusCode, Json<JobView>), Response> {
    let count = operations.inner.letters.count(&filter).await;
    let total = count.map_err(|error| away(&error))?;
    if total == 0 {
        let of = match (&filter.key, &filter.consumer) {
            (None, None) => String::new(),
            (Some(key), None) => format!(" of the key {key}"),
            (None, Some(consumer)) => format!(" of the consumer {consumer}"),
            (Some(key), Some(consumer)) => {
                format!(" of the key {key} and the consumer {consumer}")
            }
        };
        return Err(Problem::not_found(format!("there are no dead letters{of}")).into_response());
    }
    match operations.begin(work, filter, total) {
        Ok(job) => Ok((StatusCode::ACCEPTED, Json(job))),
        Err(running) => Err(Problem::new(StatusCode::CONFLICT)
            .with_detail(format!(
                "work on dead letters is under way already, {} of {} done; ask again when it has ended",
                running.done, running.total
            ))
            .into_response()),
    }
}

/// Takes dead letters once more, key by key, in order, in the background.
#[utoipa::path(
    post,
    path = "/admin/dead-letters/retry",
    operation_id = "retryDeadLetters",
    request_body = documents::DeadLetterFilter,
    responses(
        (status = 202, description = "The work that was begun.", body = JobView),
        (status = 404, description = "The filter takes none.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Work on dead letters is under way already.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn retry(
    State(operations): State<DeadLetterOperations>,
    ProblemJson(filter): ProblemJson<DeadLetterFilter>,
) -> Result<(StatusCode, Json<JobView>), Response> {
    begin(operations, Work::Retry, filter).await
}

/// Removes dead letters without taking them, in the background.
///
/// Each stays on its dead letter topic, with the record of this.
#[utoipa::path(
    post,
    path = "/admin/dead-letters/discard-all",
    operation_id = "discardDeadLetters",
    request_body = documents::DeadLetterFilter,
    responses(
        (status = 202, description = "The work that was begun.", body = JobView),
        (status = 404, description = "The filter takes none.", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Work on dead letters is under way already.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn discard_all(
    State(operations): State<DeadLetterOperations>,
    ProblemJson(filter): ProblemJson<DeadLetterFilter>,
) -> Result<(StatusCode, Json<JobView>), Response> {
    begin(operations, Work::Discard, filter).await
}

/// How far the work on dead letters is that was begun last.
#[utoipa::path(
    get,
    path = "/admin/dead-letters/job",
    operation_id = "deadLetterJob",
    responses(
        (status = 200, description = "The work, which may have ended.", body = JobView),
        (status = 404, description = "None was begun since the service started.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn job(
    State(operations): State<DeadLetterOperations>,
) -> Result<Json<JobView>, Response> {
    let job = operations.job().clone();
    job.map(Json).ok_or_else(|| {
        Problem::not_found("no work on dead letters was begun since the service started")
            .into_response()
    })
}

/// Removes one dead letter without taking it.
///
/// It stays on its dead letter topic, with the record of this.
#[utoipa::path(
    post,
    path = "/admin/dead-letters/discard",
    operation_id = "discardDeadLetter",
    request_body = documents::LetterId,
    responses(
        (status = 200, description = "It is removed.", body = bool),
        (status = 404, description = "There is no such dead letter.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn discard(
    State(operations): State<DeadLetterOperations>,
    ProblemJson(id): ProblemJson<LetterId>,
) -> Result<Json<bool>, Response> {
    // Continues when the caller disconnects, so that a discard is always completed.
    let shutdown = operations.inner.shutdown.clone();
    let discarding = shutdown.spawn(async move { operations.discard(&id).await });
    match discarding.await {
        Ok(Ok(true)) => Ok(Json(true)),
        Ok(Ok(false)) => Err(Problem::not_found("there is no such dead letter").into_response()),
        Ok(Err(error)) => Err(away(&error)),
        Err(_) => Err(Problem::internal().into_response()),
    }
}
