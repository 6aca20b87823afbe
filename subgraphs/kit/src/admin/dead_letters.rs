//! Looking at dead letters, retrying them in order, discarding one: and a record of each in the dead letter topic.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Json, Router,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use rdkafka::{
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::FutureRecord,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{
    consumer::Projection,
    kafka::{
        connection::Kafka,
        message::{Message, Position, Rejection},
    },
    store::{DeadLetter, DeadLetterStore, StoreError},
    web::{json::ProblemJson, problem::Problem},
};

/// Letters looked at in one round.
const ROUND: usize = 1_000;
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
    Kafka(#[from] KafkaError),
}

/// Takes a dead letter once more, as the consumer that refused it would.
#[async_trait]
pub trait Retry: Send + Sync + 'static {
    /// The consumer's name, as dead letters name it.
    fn consumer(&self) -> &'static str;

    /// Takes it once more.
    ///
    /// # Errors
    /// When it is still refused, or the store is away.
    async fn retry(&self, letter: &DeadLetter) -> Result<(), RetryError>;
}

/// [`Retry`] by a projection.
#[derive(Debug)]
pub struct RetryProjection<P>(pub Arc<P>);

#[async_trait]
impl<P: Projection> Retry for RetryProjection<P> {
    fn consumer(&self) -> &'static str {
        self.0.name()
    }

    async fn retry(&self, letter: &DeadLetter) -> Result<(), RetryError> {
        let position = Position {
            partition: letter.partition,
            offset: letter.offset,
        };
        let message = Message {
            topic: letter.topic.clone(),
            position,
            key: Some(letter.key.clone()),
            headers: letter.headers.clone(),
            payload: letter.payload.clone(),
        };
        let item = self.0.decode(&message)?;
        Ok(self.0.apply(vec![(position, item)]).await?)
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
    kafka: Kafka,
    /// One retry at a time: two would take the same letters.
    turn: Mutex<()>,
}

/// Which letters: all, or those of one consumer, or of one key.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Selection {
    /// Only of this consumer.
    pub consumer: Option<String>,
    /// Only of this key.
    pub key: Option<String>,
}

impl Selection {
    fn takes(&self, letter: &DeadLetter) -> bool {
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|it| it == is);
        same(&self.consumer, &letter.consumer) && same(&self.key, &letter.key)
    }
}

/// A dead letter as an operator sees it.
#[derive(Clone, Debug, Deserialize, Serialize)]
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
    /// Its body as base64; `None` for a tombstone.
    pub payload: Option<String>,
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
        }
    }
}

/// What a retry did.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct RetryReport {
    /// Letters taken.
    pub retried: u64,
    /// Keys whose first letter is still refused, each with the reason; what is behind it stays parked.
    pub refused: Vec<(String, String)>,
}

/// Names one letter.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LetterId {
    /// The consumer that refused it.
    pub consumer: String,
    /// Where it was read.
    pub topic: String,
    /// Where it was read.
    pub partition: i32,
    /// Where it was read.
    pub offset: i64,
}

impl DeadLetterOffice {
    /// The office over these letters, with what takes them once more.
    #[must_use]
    pub fn open(
        letters: Arc<dyn DeadLetterStore>,
        retries: Vec<Arc<dyn Retry>>,
        kafka: &Kafka,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                letters,
                retries,
                kafka: kafka.clone(),
                turn: Mutex::new(()),
            }),
        }
    }

    /// The routes `/admin/dead-letters`, `/admin/dead-letters/retry` and `/admin/dead-letters/discard`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/dead-letters", get(list))
            .route("/admin/dead-letters/retry", post(retry))
            .route("/admin/dead-letters/discard", post(discard))
            .with_state(self)
    }

    /// Retries letters key by key, in order, until none is left or one is still refused.
    ///
    /// # Errors
    /// When the store or Kafka is away; what was retried until then stays so.
    pub async fn retry(&self, selection: &Selection) -> Result<RetryReport, RetryError> {
        let _turn = self.inner.turn.lock().await;
        let mut report = RetryReport::default();
        let mut refused: BTreeSet<(String, String)> = BTreeSet::new();
        let mut quiet_since = tokio::time::Instant::now();
        let mut taken_any = false;
        loop {
            let mut taken_now = false;
            for letter in self.inner.letters.dead_letters(None, ROUND).await? {
                let lane = (letter.consumer.clone(), letter.key.clone());
                if !selection.takes(&letter) || refused.contains(&lane) {
                    continue;
                }
                let Some(by) = self
                    .inner
                    .retries
                    .iter()
                    .find(|retry| retry.consumer() == letter.consumer)
                else {
                    continue;
                };
                match by.retry(&letter).await {
                    Ok(()) => {
                        self.close(&letter, "retried").await?;
                        report.retried += 1;
                        (taken_now, taken_any) = (true, true);
                    }
                    Err(RetryError::Refused(rejection)) => {
                        report.refused.push((letter.key.clone(), rejection.reason));
                        refused.insert(lane);
                    }
                    Err(away) => return Err(away),
                }
            }
            if taken_now {
                quiet_since = tokio::time::Instant::now();
            } else if !taken_any || quiet_since.elapsed() >= QUIET {
                return Ok(report);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Removes one letter without taking it. Returns whether it was there.
    ///
    /// # Errors
    /// When the store or Kafka is away.
    pub async fn discard(&self, id: &LetterId) -> Result<bool, RetryError> {
        let found = self
            .inner
            .letters
            .dead_letters(Some(&id.consumer), usize::MAX)
            .await?
            .into_iter()
            .find(|letter| {
                (&letter.topic, letter.partition, letter.offset)
                    == (&id.topic, id.partition, id.offset)
            });
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
        let topic = dead_letter_topic(&letter.topic);
        let partition = letter.partition.to_string();
        let offset = letter.offset.to_string();
        let at = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let fields = [
            ("dead-letter-resolution", resolution),
            ("dead-letter-consumer", letter.consumer.as_str()),
            ("dead-letter-topic", letter.topic.as_str()),
            ("dead-letter-partition", partition.as_str()),
            ("dead-letter-offset", offset.as_str()),
            ("dead-letter-reason", letter.reason.as_str()),
            ("dead-letter-at", at.as_str()),
        ];
        let headers = fields
            .into_iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&topic)
            .key(letter.key.as_str())
            .headers(headers);
        self.inner.kafka.send_record(record).await?;
        self.inner
            .letters
            .unpark(
                &letter.consumer,
                &letter.topic,
                letter.partition,
                letter.offset,
            )
            .await?;
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

/// The topic that dead letters of a topic are copied to.
#[must_use]
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.DLT")
}

async fn list(
    State(office): State<DeadLetterOffice>,
    Query(selection): Query<Selection>,
) -> Result<Json<Vec<LetterView>>, Response> {
    let found = office
        .inner
        .letters
        .dead_letters(selection.consumer.as_deref(), ROUND)
        .await
        .map_err(|error| Problem::unavailable(error.to_string()).into_response())?;
    Ok(Json(
        found
            .into_iter()
            .filter(|letter| selection.takes(letter))
            .map(LetterView::from)
            .collect(),
    ))
}

async fn retry(
    State(office): State<DeadLetterOffice>,
    ProblemJson(selection): ProblemJson<Selection>,
) -> Result<Json<RetryReport>, Response> {
    // Goes on when the caller hangs up: a retry that was begun is finished.
    let task = tokio::spawn(async move { office.retry(&selection).await });
    match task.await {
        Ok(Ok(report)) => Ok(Json(report)),
        Ok(Err(error)) => Err(Problem::unavailable(error.to_string()).into_response()),
        Err(_) => Err(Problem::internal().into_response()),
    }
}

async fn discard(
    State(office): State<DeadLetterOffice>,
    ProblemJson(id): ProblemJson<LetterId>,
) -> Result<Json<bool>, Response> {
    match office.discard(&id).await {
        Ok(true) => Ok(Json(true)),
        Ok(false) => Err(Problem::not_found("there is no such dead letter").into_response()),
        Err(error) => Err(Problem::unavailable(error.to_string()).into_response()),
    }
}
