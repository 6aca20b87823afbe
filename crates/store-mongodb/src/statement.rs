//! Encodes one write as one statement of an `insert` or `update` command, in a way that the statement's own error shows
//! the result.

use mongodb::bson::{self, Bson, DateTime, Document, RawDocument, RawDocumentBuf, Uuid, doc};
use serde::Serialize;

use super::documents::{Mark, PendingDocument, binary, date, native, unwritable};
use tandem_event_path::store::{KEPT_ANSWERS, StoreError, Write};
use tandem_model::{aggregate::Aggregate, request_key::RequestKey};

/// How many event ids a document keeps after the events are published: see [`super::group_commit`].
pub(super) const RECENT_EVENTS: i64 = 8;

/// An encoded write, with the data that is needed to interpret its result.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) id: String,
    pub(super) expected_revision: i64,
    pub(super) event: Uuid,
    pub(super) idempotency_key: Option<RequestKey>,
    pub(super) document: RawDocumentBuf,
}

/// The document of an aggregate as its first command writes it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct New<'a, A> {
    #[serde(rename = "_id")]
    id: &'a str,
    revision: i64,
    state: &'a A,
    pending: [PendingDocument; 1],
    recent_events: [Uuid; 1],
    waiting: i64,
    oldest_pending: DateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<[Mark<'a>; 1]>,
}

#[derive(Serialize)]
struct Update<U> {
    q: Document,
    u: U,
    upsert: bool,
}

#[derive(Serialize)]
struct Operators<'a, A> {
    #[serde(rename = "$set")]
    set: Set<'a, A>,
    #[serde(rename = "$push")]
    push: Push,
    #[serde(rename = "$inc")]
    inc: Document,
    #[serde(rename = "$min")]
    min: Document,
    #[serde(rename = "$setOnInsert")]
    set_on_insert: Document,
}

#[derive(Serialize)]
struct SetState<'a, S> {
    #[serde(rename = "$set")]
    set: Set<'a, S>,
}

impl<'a, S> SetState<'a, S> {
    fn to(revision: i64, state: &'a S) -> Self {
        Self {
            set: Set { revision, state },
        }
    }
}

#[derive(Serialize)]
struct Set<'a, A> {
    revision: i64,
    state: &'a A,
}

#[derive(Serialize)]
struct Push {
    pending: PendingDocument,
    #[serde(rename = "recentEvents")]
    recent_events: Document,
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<Document>,
}

impl Statement {
    /// Inserts the document of a new aggregate. If it exists already, its `_id` is a duplicate.
    pub(super) fn creation<A: Aggregate>(write: &Write<A>) -> Result<Self, StoreError> {
        let recorded_at = date(write.event.recorded_at);
        let new = New {
            id: write.state.id(),
            revision: write.state.revision(),
            state: &write.state,
            pending: [PendingDocument::from(&write.event)],
            recent_events: [binary(write.event.event.id)],
            waiting: 1,
            oldest_pending: recorded_at,
            answers: mark(write).map(|mark| [mark]),
        };
        Self::of(write, &new)
    }

    /// Updates an existing aggregate.
    ///
    /// In a command with many statements, only errors have the index of their statement. So a write that finds another
    /// revision must be an error. This is why the statement is an upsert: the filter requires the expected revision,
    /// and if it does not match, MongoDB tries to insert. An insert would be wrong even if there were no document. So
    /// `$setOnInsert` sets an `_id` other than the filter's, which MongoDB refuses (`ImmutableField`).
    ///
    /// The unique index on `answers.key` does not compare keys within one document, so the filter does.
    pub(super) fn change<A: Aggregate>(write: &Write<A>) -> Result<Self, StoreError> {
        let recorded_at = date(write.event.recorded_at);
        let mut filter = doc! { "_id": write.state.id(), "revision": write.expected_revision };
        if let Some(key) = &write.idempotency_key {
            let names: Vec<&str> = key.names().collect();
            filter.insert("answers.key", doc! { "$nin": names });
        }
        let added = mark(write).map(|mark| one_more(&mark)).transpose()?;
        let event = binary(write.event.event.id);
        let update = Update {
            q: filter,
            u: Operators {
                set: Set {
                    revision: write.expected_revision + 1,
                    state: &write.state,
                },
                push: Push {
                    pending: PendingDocument::from(&write.event),
                    recent_events: doc! { "$each": [event], "$slice": -RECENT_EVENTS },
                    answers: added,
                },
                inc: doc! { "waiting": 1_i64 },
                min: doc! { "oldestPending": recorded_at },
                set_on_insert: doc! { "_id": Bson::Boolean(false) },
            },
            upsert: true,
        };
        Self::of(write, &update)
    }

    /// Inserts a first answer into its own collection.
    pub(super) fn of_an_answer(name: String, id: Uuid, document: RawDocumentBuf) -> Self {
        Self {
            id: name,
            expected_revision: 0,
            event: id,
            idempotency_key: None,
            document,
        }
    }

    fn of<A: Aggregate>(write: &Write<A>, statement: &impl Serialize) -> Result<Self, StoreError> {
        Ok(Self {
            id: write.state.id().to_owned(),
            expected_revision: write.expected_revision,
            event: binary(write.event.event.id),
            idempotency_key: write.idempotency_key.clone(),
            document: bson::serialize_to_raw_document_buf(statement).map_err(unwritable)?,
        })
    }
}

/// The mark that the command's idempotency key was used, if it has one. The answer has the id of the event.
fn mark<A: Aggregate>(write: &Write<A>) -> Option<Mark<'_>> {
    let RequestKey { key, input, .. } = write.idempotency_key.as_ref()?;
    Some(Mark {
        key,
        at: date(write.event.recorded_at),
        input,
        answer: binary(write.event.event.id).to_string(),
    })
}

/// The pipeline that changes an existing aggregate and removes the answers from its marks, in one step.
pub(super) fn forgetting_change<A: Aggregate>(
    write: &Write<A>,
) -> Result<Vec<Document>, StoreError> {
    // A literal is never evaluated as an expression, whatever text it contains.
    let literal = |value: Bson| doc! { "$literal": value };
    let list = |field: &str| doc! { "$ifNull": [field, []] };
    let one_more = |of: Document, more: Vec<Document>| doc! { "$concatArrays": [of, more] };
    let newest = |of: Document, most: i64| doc! { "$slice": [of, -most] };
    let most_answers = i64::try_from(KEPT_ANSWERS).unwrap_or(i64::MAX);
    let recorded_at = date(write.event.recorded_at);
    let (state, event) = (
        native(&write.state)?,
        native(&PendingDocument::from(&write.event))?,
    );
    let own = mark(write).map(|mark| native(&mark)).transpose()?;
    let without_answers = doc! { "$map": {
        "input": list("$answers"),
        "as": "mark",
        "in": { "key": "$$mark.key", "at": "$$mark.at", "input": "$$mark.input" },
    } };
    let own = own.map(|mark| literal(mark.into())).into_iter().collect();
    let id = literal(binary(write.event.event.id).into());
    let recent = one_more(list("$recentEvents"), vec![id]);
    let waiting = doc! { "$ifNull": ["$waiting", 0_i64] };
    Ok(vec![doc! { "$set": {
        "revision": write.expected_revision + 1,
        "state": literal(state.into()),
        "pending": one_more(list("$pending"), vec![literal(event.into())]),
        "recentEvents": newest(recent, RECENT_EVENTS),
        "waiting": { "$add": [waiting, 1_i64] },
        "oldestPending": { "$min": ["$oldestPending", recorded_at] },
        "answers": newest(one_more(without_answers, own), most_answers),
        "forgetAnswersBefore": recorded_at,
    } }])
}

/// The argument of `$push` for the marks of a document: adds one, and drops the oldest above the limit.
pub(super) fn one_more(mark: &Mark<'_>) -> Result<Document, StoreError> {
    let mark = native(mark)?;
    let most = i64::try_from(KEPT_ANSWERS).unwrap_or(i64::MAX);
    Ok(doc! { "$each": [mark], "$slice": -most })
}

/// Replaces a state that is not newer. If there is a newer one, the statement fails with a duplicate `_id`.
pub(super) fn restore(
    id: &str,
    revision: i64,
    state: &RawDocument,
) -> Result<RawDocumentBuf, StoreError> {
    let restore = Update {
        q: doc! { "_id": id, "revision": { "$lte": revision } },
        u: SetState::to(revision, &state),
        upsert: true,
    };
    bson::serialize_to_raw_document_buf(&restore).map_err(unwritable)
}

/// Replaces the state of the document that this filter matches. Inserts nothing if there is none.
pub(super) fn revert<A: Aggregate>(
    filter: Document,
    state: &A,
) -> Result<RawDocumentBuf, StoreError> {
    let revert = Update {
        q: filter,
        u: SetState::to(state.revision(), state),
        upsert: false,
    };
    bson::serialize_to_raw_document_buf(&revert).map_err(unwritable)
}

/// Replaces the whole document that this filter matches.
///
/// # Errors
/// [`StoreError::Corrupt`] if both together are too large for a document.
pub fn replacement(
    filter: Document,
    document: &RawDocument,
    upsert: bool,
) -> Result<RawDocumentBuf, StoreError> {
    let replacement = Update {
        q: filter,
        u: document,
        upsert,
    };
    bson::serialize_to_raw_document_buf(&replacement).map_err(unwritable)
}

/// Clears all pending events of those of these aggregates that are at this revision.
pub(super) fn clear_all(ids: &[&str], revision: i64) -> Document {
    doc! {
        "q": { "_id": { "$in": ids }, "revision": revision, "waiting": { "$gt": 0 } },
        "u": { "$set": { "pending": [], "waiting": 0_i64 }, "$unset": { "oldestPending": "" } },
        "multi": true,
    }
}

/// Clears an aggregate's pending events up to a revision.
pub(super) fn clear_up_to(id: &str, revision: i64) -> Document {
    let left = doc! { "$filter": {
        "input": "$pending", "as": "event", "cond": { "$gt": ["$$event.revision", revision] },
    } };
    let oldest = doc! { "$ifNull": [{ "$arrayElemAt": ["$pending.recordedAt", 0] }, "$$REMOVE"] };
    doc! {
        "q": { "_id": id, "waiting": { "$gt": 0 } },
        "u": [
            { "$set": { "pending": left } },
            { "$set": { "waiting": { "$toLong": { "$size": "$pending" } }, "oldestPending": oldest } },
        ],
    }
}
