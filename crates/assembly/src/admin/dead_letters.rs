//! Looking at dead letters, retrying them in order, discarding them: and a record of each in the dead letter topic.
//!
//! Retrying and discarding many is a job of the service: whoever began it may go away, and anybody may ask how far it is.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use tandem_authentication::Access;
use tandem_event_path::{
    dead_letter_topic::DeadLetterTopic,
    log::{Arrival, Attention, Log, LogError, PublishError},
    projection::Projection,
    store::{DeadLetter, DeadLetterStore, StoreError, dead_letters::stands_alone},
};
use tandem_model::{
    cloudevents::REFUSED,
    message::{Message, Position, Rejection},
};
use tandem_runtime::shutdown::Shutdown;
use tandem_service::web::{json::ProblemJson, problem::Problem};
use utoipa::{IntoParams, ToSchema};

use super::{may_see_persons, openapi::documents};

pub use tandem_event_path::{
    dead_letter_topic::dead_letter_topic,
    store::{DeadLetterFilter, LetterId},
};

/// How long reading a message from its topic may take.
const READING: Duration = Duration::from_secs(10);
/// Letters worked on in one round.
const ROUND: usize = 500;
/// Letters in a page, unless the caller wants fewer.
const PAGE: usize = 200;
/// Refused keys whose reasons a report names; of more only the number.
const NAMED: usize = 100;
/// A key counts as free when no letter of it has come for this long: longer than a consumer holds on to its list of
/// parked keys, so that what it parked meanwhile is retried too.
const QUIET: Duration = Duration::from_secs(5);

/// Why a retry did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    /// The message still cannot be taken.
    #[error("still refused: {0}")]
    Refused(#[from] Rejection),
    /// The store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record of it could not be written to the dead letter topic.
    #[error("Kafka is away: {0}")]
    Log(#[from] PublishError),
    /// What is too large to be kept could not be read from its topic.
    #[error("the message cannot be read from its topic: {0}")]
    Read(#[from] LogError),
    /// The service stops.
    #[error("the service is stopping")]
    Stopping,
}

/// Takes a dead letter once more, as the consumer that refused it would.
#[async_trait]
pub trait Retry: Send + Sync + 'static {
    /// The consumer's name, as dead letters name it.
    fn consumer(&self) -> &'static str;

    /// The topic that it reads.
    fn topic(&self) -> &'static str;

    /// Takes it once more.
    ///
    /// # Errors
    /// When it is still refused, or the store is away.
    async fn retry(&self, message: Message) -> Result<(), RetryError>;
}

/// [`Retry`] by a projection.
#[derive(Debug)]
pub struct RetryProjection<P> {
    /// The projection.
    pub projection: Arc<P>,
    /// What it reads.
    pub topic: &'static str,
}

#[async_trait]
impl<P: Projection> Retry for RetryProjection<P> {
    fn consumer(&self) -> &'static str {
        self.projection.name()
    }

    fn topic(&self) -> &'static str {
        self.topic
    }

    async fn retry(&self, message: Message) -> Result<(), RetryError> {
        let item = self.projection.decode(&message)?;
        let keys = self.projection.keys(std::slice::from_ref(&item)).await?;
        // Nobody is away: what is missing is named.
        let item = self
            .projection
            .open(item, &keys)
            .map_err(|unopened| Rejection::new(unopened.to_string()))?;
        Ok(self
            .projection
            .apply(vec![(message.position, item)])
            .await?)
    }
}

/// The dead letters of one service.
#[derive(Clone)]
pub struct DeadLetterOffice {
    inner: Arc<Inner>,
}

struct Inner {
    letters: Arc<dyn DeadLetterStore>,
    retries: Vec<Arc<dyn Retry>>,
    log: Arc<dyn Log>,
    copies: DeadLetterTopic,
    shutdown: Shutdown,
    /// The job that was begun last. One at a time: two would take the same letters.
    job: Mutex<Option<JobView>>,
}

/// A dead letter as an operator sees it.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct LetterView {
    /// The consumer that refused it.
    pub consumer: String,
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
    /// Its key.
    pub key: String,
    /// Why it was refused.
    pub reason: String,
    /// When.
    pub parked_at: DateTime<Utc>,
    /// Its headers; values that are not text are shown with replacement characters.
    pub headers: Vec<(String, String)>,
    /// Its body as base64; `None` for a tombstone, in a list, and where it is withheld.
    pub payload: Option<String>,
    /// Whether the message has more than this; its topic has it whole.
    #[serde(default)]
    pub is_cut: bool,
    /// Whether the body is left out, because the caller's token has not the scope `customers:read`.
    #[serde(default)]
    pub withheld: bool,
}

impl LetterView {
    /// Without its body, in which a person may be.
    fn without_body(self) -> Self {
        Self {
            payload: None,
            withheld: true,
            ..self
        }
    }
}

impl From<DeadLetter> for LetterView {
    fn from(letter: DeadLetter) -> Self {
        Self {
            consumer: letter.consumer,
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            key: letter.key,
            reason: letter.reason,
            parked_at: letter.parked_at,
            headers: letter
                .headers
                .into_iter()
                .map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()))
                .collect(),
            payload: letter.payload.map(|payload| STANDARD.encode(payload)),
            is_cut: letter.is_cut,
            withheld: false,
        }
    }
}

/// A page of letters.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
pub struct LetterPage {
    /// In order of consumer, topic, partition, offset; without their bodies.
    pub letters: Vec<LetterView>,
    /// How many the filter takes, on all pages.
    pub total: u64,
    /// What `after` is for the next page; `None` when there is none.
    pub next: Option<String>,
}

/// What is asked for of a list.
#[derive(Clone, Debug, Default, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListRequest {
    /// Only of this consumer.
    pub consumer: Option<String>,
    /// Only of this key.
    pub key: Option<String>,
    /// Only what is behind this: a page's `next`.
    pub after: Option<String>,
    /// At most so many; 1 to 200.
    #[param(minimum = 1, maximum = 200)]
    pub limit: Option<usize>,
}

/// What a job does with letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Work {
    /// Takes them once more, key by key, in order.
    Retry,
    /// Removes them without taking them.
    Discard,
}

/// A job, and how far it is.
#[derive(Clone, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Tells it from every other one.
    pub id: String,
    /// What it does.
    pub work: Work,
    /// With which letters.
    #[schema(value_type = documents::DeadLetterFilter)]
    pub filter: DeadLetterFilter,
    /// When it began.
    pub begun_at: DateTime<Utc>,
    /// When it ended; `None` while it is under way.
    pub ended_at: Option<DateTime<Utc>>,
    /// How many letters there were when it began.
    pub total: u64,
    /// Letters taken or removed.
    pub done: u64,
    /// Keys whose first letter is still refused; what is behind it stays parked.
    pub refused_keys: u64,
    /// The first hundred of them, each with the reason.
    pub refused: Vec<(String, String)>,
    /// Why it ended early; what was done until then stays so.
    pub failed: Option<String>,
}

impl JobView {
    /// Whether it is under way.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ended_at.is_none()
    }
}

impl DeadLetterOffice {
    /// The office over these letters, with what takes them once more.
    #[must_use]
    pub fn open(
        letters: Arc<dyn DeadLetterStore>,
        retries: Vec<Arc<dyn Retry>>,
        log: &Arc<dyn Log>,
        shutdown: &Shutdown,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                letters,
                retries,
                log: Arc::clone(log),
                copies: DeadLetterTopic::start(log, shutdown),
                shutdown: shutdown.clone(),
                job: Mutex::default(),
            }),
        }
    }

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

    fn job(&self) -> MutexGuard<'_, Option<JobView>> {
        self.inner
            .job
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut JobView)) {
        if let Some(job) = self.job().as_mut() {
            change(job);
        }
    }

    /// Begins a job, which goes on whoever goes away. Answers it, or the one that is under way as an error.
    ///
    /// # Errors
    /// When one is under way.
    fn begin(
        &self,
        work: Work,
        filter: DeadLetterFilter,
        total: u64,
    ) -> Result<JobView, Box<JobView>> {
        let begun = {
            let mut job = self.job();
            if let Some(running) = job.as_ref().filter(|job| job.is_running()) {
                return Err(Box::new(running.clone()));
            }
            job.insert(JobView {
                id: self.inner.shutdown.clock().new_id().to_string(),
                work,
                filter: filter.clone(),
                begun_at: Utc::now(),
                ended_at: None,
                total,
                done: 0,
                refused_keys: 0,
                refused: Vec::new(),
                failed: None,
            })
            .clone()
        };
        let office = self.clone();
        self.inner.shutdown.spawn(async move {
            let work = async {
                match work {
                    Work::Retry => office.retry(&filter).await,
                    Work::Discard => office.discard_those(&filter).await,
                }
            };
            let ended = tokio::select! {
                ended = work => ended,
                () = office.inner.shutdown.requested() => Err(RetryError::Stopping),
            };
            office.note(|job| {
                job.ended_at = Some(Utc::now());
                job.failed = ended.err().map(|error| error.to_string());
                tracing::info!(work = ?job.work, done = job.done, refused = job.refused_keys, failed = ?job.failed, "work on dead letters has ended");
            });
        });
        Ok(begun)
    }

    /// Retries letters key by key, in order, until none is left or one is still refused.
    async fn retry(&self, filter: &DeadLetterFilter) -> Result<(), RetryError> {
        let mut refused: BTreeSet<(String, String)> = BTreeSet::new();
        let clock = self.inner.shutdown.clock();
        let mut quiet_since = clock.instant();
        let mut taken_any = false;
        loop {
            let mut taken_now = false;
            let mut after = None;
            loop {
                let page = self
                    .inner
                    .letters
                    .dead_letters(filter, after.as_ref(), ROUND)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.id());
                for letter in page {
                    let ordering_key = (letter.consumer.clone(), letter.key.clone());
                    if refused.contains(&ordering_key) {
                        continue;
                    }
                    match self.retry_one(&letter).await {
                        Ok(true) => {
                            self.close(&letter, "retried").await?;
                            self.note(|job| job.done += 1);
                            (taken_now, taken_any) = (true, true);
                        }
                        // No consumer of this service's is called so: a version before this one had it.
                        Ok(false) => {}
                        Err(RetryError::Refused(rejection)) => {
                            self.note(|job| {
                                job.refused_keys += 1;
                                if job.refused.len() < NAMED {
                                    job.refused.push((letter.key.clone(), rejection.reason));
                                }
                            });
                            refused.insert(ordering_key);
                        }
                        Err(away) => return Err(away),
                    }
                }
            }
            if taken_now {
                quiet_since = clock.instant();
            } else if !taken_any || clock.since(quiet_since) >= QUIET {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(200)).await;
        }
    }

    /// Takes a letter once more. Answers whether there is somebody to take it.
    async fn retry_one(&self, letter: &DeadLetter) -> Result<bool, RetryError> {
        let retries = &self.inner.retries;
        let Some(by) = retries
            .iter()
            .find(|retry| retry.consumer() == letter.consumer)
        else {
            return Ok(false);
        };
        by.retry(self.message(letter).await?).await?;
        Ok(true)
    }

    /// The message of a letter: of one that is cut, or was refused for its signature, as its topic has it. A signature is judged anew.
    async fn message(&self, letter: &DeadLetter) -> Result<Message, RetryError> {
        let position = Position {
            partition: letter.partition,
            offset: letter.offset,
        };
        let was_refused = letter.headers.iter().any(|(name, _)| name == REFUSED);
        if letter.is_cut || was_refused {
            let topic = self.inner.retries.iter().map(|retry| retry.topic());
            let Some(topic) = topic.into_iter().find(|topic| *topic == letter.topic) else {
                let unknown = "it is not kept whole, and its topic is none of this service's";
                return Err(RetryError::Refused(Rejection::new(unknown)));
            };
            let found = self.read_whole(topic, position).await?;
            return found.ok_or_else(|| {
                let gone = "it is not kept whole, and is not in its topic any more";
                RetryError::Refused(Rejection::new(gone))
            });
        }
        // A letter that stands alone had no key, and its projection must not take its name for one.
        let key = Some(letter.key.clone()).filter(|key| !stands_alone(key));
        Ok(Message {
            topic: letter.topic.clone(),
            position,
            key,
            headers: letter.headers.clone(),
            payload: letter.payload.clone(),
            published_ms: None,
        })
    }

    /// The message at a place, as its topic has it; `None` if it is not there any more.
    async fn read_whole(
        &self,
        topic: &'static str,
        position: Position,
    ) -> Result<Option<Message>, RetryError> {
        let from = [(position.partition, position.offset)].into();
        let tail = self.inner.log.tail(topic, &from, Attention::Prompt)?;
        let reading = async {
            loop {
                match tail.next().await? {
                    Arrival::Record(message) if message.position == position => {
                        return Ok(Some(message));
                    }
                    Arrival::Record(message) if message.position > position => return Ok(None),
                    Arrival::End(partition) if partition == position.partition => return Ok(None),
                    Arrival::Record(_) | Arrival::End(_) => {}
                }
            }
        };
        let read = self.inner.shutdown.clock().timeout(READING, reading).await;
        read.unwrap_or_else(|_| Err(LogError::Away("it is not read in time".to_owned())))
            .map_err(RetryError::Read)
    }

    /// Removes letters without taking them.
    async fn discard_those(&self, filter: &DeadLetterFilter) -> Result<(), RetryError> {
        loop {
            let page = self.inner.letters.dead_letters(filter, None, ROUND).await?;
            if page.is_empty() {
                return Ok(());
            }
            for letter in page {
                self.close(&letter, "discarded").await?;
                self.note(|job| job.done += 1);
            }
        }
    }

    /// Removes one letter without taking it. Returns whether it was there.
    ///
    /// # Errors
    /// When the store or Kafka is away.
    pub async fn discard(&self, id: &LetterId) -> Result<bool, RetryError> {
        let found = self.inner.letters.dead_letter(id).await?;
        match found {
            Some(letter) => {
                self.close(&letter, "discarded").await?;
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Records in the dead letter topic what was done, then removes the letter.
    async fn close(&self, letter: &DeadLetter, resolution: &str) -> Result<(), RetryError> {
        self.inner.copies.record(letter, resolution).await?;
        self.inner.letters.unpark(&letter.id()).await?;
        tracing::info!(
            resolution,
            consumer = letter.consumer,
            topic = letter.topic,
            partition = letter.partition,
            offset = letter.offset,
            key = letter.key,
            "dead letter closed"
        );
        Ok(())
    }
}

fn away(error: &dyn std::error::Error) -> Response {
    Problem::unavailable(error.to_string()).into_response()
}

/// What `after` is for the page behind a letter.
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
    State(office): State<DeadLetterOffice>,
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
    let letters = &office.inner.letters;
    // One more than asked for tells whether there is another page.
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
    State(office): State<DeadLetterOffice>,
    access: Option<Extension<Access>>,
    Query(id): Query<LetterId>,
) -> Result<Json<LetterView>, Response> {
    let is_shown = access.is_none_or(|Extension(access)| may_see_persons(&access));
    let found = office.inner.letters.dead_letter(&id).await;
    match found.map_err(|error| away(&error))? {
        Some(letter) if is_shown => Ok(Json(letter.into())),
        Some(letter) => Ok(Json(LetterView::from(letter).without_body())),
        None => Err(Problem::not_found("there is no such dead letter").into_response()),
    }
}

/// Begins a job with what a filter takes; with nothing to work on it says so.
async fn begin(
    office: DeadLetterOffice,
    work: Work,
    filter: DeadLetterFilter,
) -> Result<(StatusCode, Json<JobView>), Response> {
    let count = office.inner.letters.count(&filter).await;
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
    match office.begin(work, filter, total) {
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
    State(office): State<DeadLetterOffice>,
    ProblemJson(filter): ProblemJson<DeadLetterFilter>,
) -> Result<(StatusCode, Json<JobView>), Response> {
    begin(office, Work::Retry, filter).await
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
    State(office): State<DeadLetterOffice>,
    ProblemJson(filter): ProblemJson<DeadLetterFilter>,
) -> Result<(StatusCode, Json<JobView>), Response> {
    begin(office, Work::Discard, filter).await
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
pub(super) async fn job(State(office): State<DeadLetterOffice>) -> Result<Json<JobView>, Response> {
    let job = office.job().clone();
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
    State(office): State<DeadLetterOffice>,
    ProblemJson(id): ProblemJson<LetterId>,
) -> Result<Json<bool>, Response> {
    // Goes on when the caller hangs up: what was begun is finished.
    let shutdown = office.inner.shutdown.clone();
    let discarding = shutdown.spawn(async move { office.discard(&id).await });
    match discarding.await {
        Ok(Ok(true)) => Ok(Json(true)),
        Ok(Ok(false)) => Err(Problem::not_found("there is no such dead letter").into_response()),
        Ok(Err(error)) => Err(away(&error)),
        Err(_) => Err(Problem::internal().into_response()),
    }
}
