//! Dead letters, and the work on them, as an operator sees them.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tandem_event_path::store::{DeadLetter, DeadLetterFilter};
use utoipa::{IntoParams, ToSchema};

use crate::admin::documents;

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
    /// The letter without its body, which may contain personal data.
    pub(super) fn without_body(self) -> Self {
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
    /// Whether the job is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.ended_at.is_none()
    }
}
