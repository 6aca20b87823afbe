//! The audit of one customer for operators: every change in the audit trail, as the log has it, with the differences
//! from the change before.
//!
//! The trail has the position of each change in the log, so only those messages are read.

pub mod cards;
pub mod differences;

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tandem_authentication::Access;
use tandem_event_path::{
    data_keys::Opener,
    log::{Attention, Log, LogError, Offsets, Tail, record_at},
    store::{ChangeLog, ChangeRecord, ChangesRequest, StoreError},
};
use tandem_model::{
    cloudevents::REFUSED,
    message::{Message, Position},
    seal::Key,
};
use tandem_service::web::problem::Problem;
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::may_see_persons;
use cards::mask_cards_at;
use differences::{Difference, differences};

/// Changes per page, unless the caller requests fewer.
const PAGE: usize = 20;
/// Most changes per page. Each one needs a read from the log.
const MOST: usize = 50;
/// How many audits are read at once. Others wait, within their time limit.
const AT_ONCE: usize = 2;
/// The longest id, in bytes. No customer has a longer one.
const LONGEST_ID: usize = 64;
/// The time limit for the store and the log to answer.
const LIMIT: Duration = Duration::from_secs(8);

/// Whose audit is asked for, and which part of it.
#[derive(Clone, Debug, Deserialize, Serialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditRequest {
    /// The customer's id.
    pub id: String,
    /// Only revisions greater than this: a page's `next`.
    #[serde(default)]
    #[param(required = false, minimum = 0)]
    pub after: i64,
    /// At most so many; 1 to 50.
    #[param(minimum = 1, maximum = 50)]
    pub limit: Option<usize>,
}

/// A part of an audit, oldest first.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditPage {
    /// The changes.
    pub changes: Vec<AuditedChange>,
    /// What `after` is for the next page; `None` when there is none.
    pub next: Option<i64>,
    /// Whether the values of differences are left out, because the caller's token has not the scope `customers:read`.
    pub withheld: bool,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditedChange {
    /// The CloudEvents id of the event that carried it.
    pub event_id: String,
    /// The revision that it made.
    pub revision: i64,
    /// What kind of change, such as `CREATED`.
    pub kind: String,
    /// When.
    pub changed_at: DateTime<Utc>,
    /// Who asked for it.
    pub changed_by: String,
    /// Where in the log the event is.
    pub partition: i32,
    /// Where in that partition.
    pub offset: i64,
    /// What differs from the revision before; `None` if the event cannot be compared.
    pub differences: Option<Vec<Difference>>,
    /// Why the event, or the one before, cannot be read whole.
    pub unread: Option<String>,
}

/// Reads the audits of one kind of aggregate.
#[derive(Clone)]
pub struct AuditOperations {
    changes: Arc<dyn ChangeLog>,
    log: Arc<dyn Log>,
    topic: &'static str,
    /// The kind, which is the first part of the context that a body is sealed for.
    kind: &'static str,
    opener: Opener,
    turns: Arc<Semaphore>,
}

/// A body from the log, opened if its key is available; otherwise the reason why it cannot be read.
type Body = Result<Read, String>;

struct Read {
    body: Map<String, Value>,
    /// Why the body is still sealed.
    shut: Option<String>,
}

impl AuditOperations {
    /// Reads audits from this trail and this topic. The bodies are sealed for `<kind>/<id>/<revision>`.
    #[must_use]
    pub fn new(
        changes: Arc<dyn ChangeLog>,
        log: Arc<dyn Log>,
        topic: &'static str,
        kind: &'static str,
        opener: Opener,
    ) -> Self {
        Self {
            changes,
            log,
            topic,
            kind,
            opener,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The route `GET /admin/audit/customer`.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/admin/audit/customer", get(show))
            .with_state(self)
    }

    async fn page(&self, request: &AuditRequest, is_shown: bool) -> Result<AuditPage, StoreError> {
        let _turn = self.turns.acquire().await;
        let limit = request.limit.unwrap_or(PAGE).clamp(1, MOST);
        // The change before is read too, to compare with. One more change shows whether there is another page.
        let asked = ChangesRequest {
            subject: request.id.clone(),
            after_revision: request.after.saturating_sub(1),
            limit: limit + 2,
        };
        let records = self.changes.changes(&[asked]).await?.pop();
        let mut records = records.unwrap_or_default();
        let before = match records.first() {
            Some(first) if first.revision <= request.after => Some(records.remove(0)),
            _ => None,
        };
        let has_more = records.len() > limit;
        records.truncate(limit);
        let bodies = self.bodies(before.as_ref(), &records).await?;
        let (last, changes) = compared(before.is_some(), &records, bodies, is_shown);
        Ok(AuditPage {
            changes,
            next: last.filter(|_| has_more),
            withheld: !is_shown,
        })
    }

    /// The bodies of these changes, with the body of the change before as the first.
    async fn bodies(
        &self,
        before: Option<&ChangeRecord>,
        records: &[ChangeRecord],
    ) -> Result<Vec<Body>, StoreError> {
        let mut tail: Option<Box<dyn Tail>> = None;
        let mut bodies = Vec::with_capacity(records.len() + 1);
        for record in before.into_iter().chain(records) {
            let position = Position {
                partition: record.partition,
                offset: record.offset,
            };
            let from = Offsets::from([(record.partition, record.offset)]);
            match &tail {
                Some(tail) => tail.assign(&from),
                None => self
                    .log
                    .tail(self.topic, &from, Attention::Prompt)
                    .map(|opened| tail = Some(opened)),
            }
            .map_err(away)?;
            let found = match &tail {
                Some(tail) => record_at(tail.as_ref(), position).await.map_err(away)?,
                None => None,
            };
            bodies.push(self.body(found, record).await?);
        }
        Ok(bodies)
    }

    async fn body(
        &self,
        message: Option<Message>,
        record: &ChangeRecord,
    ) -> Result<Body, StoreError> {
        let Some(message) = message else {
            return Ok(Err("the log does not hold the event any more".to_owned()));
        };
        if message.header(REFUSED).is_some() {
            return Ok(Err(
                "what the log holds there is not signed by its service".to_owned()
            ));
        }
        let is_of_it = message.header("ce_id") == Some(&*record.event_id);
        let body = message.payload.as_deref().filter(|_| is_of_it);
        let Some(Ok(mut body)) = body.map(serde_json::from_slice::<Map<String, Value>>) else {
            return Ok(Err("what the log holds there is not this event".to_owned()));
        };
        let Some(sealed) = body.get("sealed").and_then(Value::as_str) else {
            return Ok(Ok(Read { body, shut: None }));
        };
        let subjects = HashSet::from([record.subject.clone()]);
        let keys = self.opener.keys_of(&subjects).await?;
        let place = format!("{}/{}/{}", self.kind, record.subject, record.revision);
        let opened = match keys.of(&record.subject) {
            Key::Here(key, _) => key
                .open(sealed, &place)
                .map_err(|error| error.to_string())
                .and_then(|plain| {
                    serde_json::from_slice::<Map<String, Value>>(&plain)
                        .map_err(|error| error.to_string())
                }),
            Key::Erased => Err("the customer is erased, and the key with them".to_owned()),
            Key::Missing(reason) => Err(reason.to_owned()),
        };
        Ok(Ok(match opened {
            Ok(person) => {
                body.remove("sealed");
                body.extend(person);
                Read { body, shut: None }
            }
            Err(reason) => Read {
                body,
                shut: Some(format!("what is sealed in it does not open: {reason}")),
            },
        }))
    }
}

/// Each change with its differences, and the revision of the last one. If `has_before`, the first body is that of the
/// change before.
fn compared(
    has_before: bool,
    records: &[ChangeRecord],
    bodies: Vec<Body>,
    is_shown: bool,
) -> (Option<i64>, Vec<AuditedChange>) {
    let mut bodies = bodies.into_iter();
    let nothing = || {
        Ok(Read {
            body: Map::new(),
            shut: None,
        })
    };
    let mut before = match has_before {
        true => bodies.next().unwrap_or_else(nothing),
        false => nothing(),
    };
    let mut last = None;
    let mut changes = Vec::with_capacity(records.len());
    for (record, now) in records.iter().zip(bodies) {
        let found = match (&before, &now) {
            (Ok(before), Ok(now)) => Some(differences(&before.body, &now.body)),
            _ => None,
        };
        let found = found.map(|found| match is_shown {
            true => found.into_iter().map(masked).collect(),
            false => found.into_iter().map(withheld).collect(),
        });
        let of = |body: &Body, which: &str| {
            match body {
                Ok(read) => read.shut.clone(),
                Err(reason) => Some(reason.clone()),
            }
            .map(|reason| format!("{which}{reason}"))
        };
        let unread = of(&now, "").or_else(|| of(&before, "of the revision before: "));
        changes.push(AuditedChange {
            event_id: record.event_id.clone(),
            revision: record.revision,
            kind: record.kind.clone(),
            changed_at: record.changed_at,
            changed_by: record.changed_by.clone(),
            partition: record.partition,
            offset: record.offset,
            differences: found,
            unread,
        });
        last = Some(record.revision);
        before = now;
    }
    (last, changes)
}

/// Masks the card numbers in a difference. Events of other systems, and free text, may contain some that are not
/// sealed.
fn masked(mut difference: Difference) -> Difference {
    mask_cards_at(&difference.field, &mut difference.before);
    mask_cards_at(&difference.field, &mut difference.after);
    difference
}

/// The difference without its values.
fn withheld(difference: Difference) -> Difference {
    Difference {
        before: Value::Null,
        after: Value::Null,
        ..difference
    }
}

fn away(error: LogError) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// Every change of a customer as the log holds it, with what differs from the one before.
///
/// Of accounts alone. Values are shown to who has the scope `customers:read` too, or the sealing key; others are told which fields differ.
#[utoipa::path(
    get,
    path = "/admin/audit/customer",
    operation_id = "audit",
    params(AuditRequest),
    responses(
        (status = 200, description = "A page of changes, oldest first; empty for a customer of whom the trail knows nothing.", body = AuditPage),
        (status = 400, description = "`id` or `after` is none.", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The store or Kafka is away; ask again later.", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn show(
    State(operations): State<AuditOperations>,
    access: Option<Extension<Access>>,
    Query(request): Query<AuditRequest>,
) -> Result<Json<AuditPage>, Response> {
    if request.id.is_empty() || request.id.len() > LONGEST_ID || request.after < 0 {
        return Err(Problem::new(StatusCode::BAD_REQUEST)
            .with_detail(
                "`id` is a customer's id, of 64 characters at most, and `after` a revision",
            )
            .into_response());
    }
    let is_shown = access.is_none_or(|Extension(access)| may_see_persons(&access));
    let clock = operations.opener.clock().clone();
    let unavailable = |detail: String| Problem::unavailable(detail).into_response();
    match clock
        .timeout(LIMIT, operations.page(&request, is_shown))
        .await
    {
        Ok(Ok(page)) => Ok(Json(page)),
        Ok(Err(error)) => Err(unavailable(error.to_string())),
        Err(_) => Err(unavailable(format!(
            "store and log did not answer within {} s; ask for fewer changes (`limit`), or again in a moment",
            LIMIT.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(revision: i64) -> ChangeRecord {
        ChangeRecord {
            subject: "7".to_owned(),
            revision,
            event_id: format!("event-{revision}"),
            kind: "UPDATED".to_owned(),
            changed_at: DateTime::UNIX_EPOCH,
            changed_by: "ada".to_owned(),
            changed_fields: Vec::new(),
            partition: 0,
            offset: revision,
        }
    }

    fn body(name: &str) -> Body {
        let body = json!({"name": {"lastName": name}});
        Ok(Read {
            body: body.as_object().cloned().unwrap_or_default(),
            shut: None,
        })
    }

    #[test]
    fn each_change_is_compared_with_the_one_before_it() {
        let records = [record(1), record(2)];
        let (last, changes) = compared(false, &records, vec![body("A"), body("B")], true);
        assert_eq!(last, Some(2));
        let of = |at: usize| changes[at].differences.clone().unwrap_or_default();
        assert_eq!(of(0)[0].before, Value::Null);
        assert_eq!(
            (of(1)[0].before.clone(), of(1)[0].after.clone()),
            (json!("A"), json!("B"))
        );
        // The first change of a later page is compared with the last change of the page before.
        let bodies = vec![body("A"), body("B")];
        let (_, changes) = compared(true, &[record(2)], bodies, true);
        assert_eq!(changes[0].differences.as_ref().map(Vec::len), Some(1));
    }

    #[test]
    fn the_numbers_of_cards_are_not_shown_wherever_they_are() {
        let number = "4111 1111 1111 1111";
        let body = |text: &str| {
            let body = json!({
                "creditCards": [{"number": "1234-6789-0000-0000"}],
                "name": {"suffix": text},
            });
            Ok(Read {
                body: body.as_object().cloned().unwrap_or_default(),
                shut: None,
            })
        };
        let bodies = vec![body(number), body("none")];
        let (_, changes) = compared(false, &[record(1), record(2)], bodies, true);
        let text = json!(changes).to_string();
        assert!(!text.contains(number) && !text.contains("6789"), "{text}");
        assert!(text.contains("**** **** **** 1111") && text.contains("****-****-****-0000"));
    }

    #[test]
    fn without_the_scope_the_fields_are_named_and_no_value_is_shown() {
        let (_, changes) = compared(false, &[record(1)], vec![body("Lovelace")], false);
        let text = json!(changes).to_string();
        assert!(
            text.contains("name.lastName") && !text.contains("Lovelace"),
            "{text}"
        );
    }

    #[test]
    fn nothing_is_concluded_from_an_event_that_cannot_be_read() {
        let gone = || Err("gone".to_owned());
        let records = [record(1), record(2), record(3)];
        let (_, changes) = compared(false, &records, vec![body("A"), gone(), body("C")], true);
        assert!(changes[0].differences.is_some());
        assert_eq!(changes[1].differences, None);
        assert_eq!(changes[1].unread.as_deref(), Some("gone"));
        assert_eq!(changes[2].differences, None);
        assert_eq!(
            changes[2].unread.as_deref(),
            Some("of the revision before: gone")
        );
    }
}
