//! First answers in MongoDB: in a collection beside the aggregates', so that a document of 16 MiB is not filled by them.
//!
//! What says that a key was used is a small mark in the aggregate's own document, `answers: [{key, at, input, answer}]`, written in
//! the same atomic step as state and event. What the request was answered is a document of its own, `{_id, of, at, state}`, written
//! **before** that step and found through the mark alone. A crash in between leaves an answer that nothing names: it is gone
//! after a day, as all are, by an index with a time to live. A mark whose answer is gone answers with the present state.
//!
//! A change that must forget the answers before it takes their names out of the marks in its own step, so that each is answered with
//! the present state, and notes there that answers are to be removed (`forgetAnswersBefore`); the note goes when they are. The marks
//! stay: the same request must not be carried out a second time. Versions before kept the states in the marks themselves.

use std::time::Duration;

use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{self, DateTime, Document, RawDocument, RawDocumentBuf, Uuid, doc},
    options::IndexOptions,
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    bulk::Bulk,
    connection::{SERVER_LIMIT, limited},
    documents::{read, unwritable},
    group_commit::GroupCommit,
    statement::Statement,
};
use tandem_event_path::store::StoreError;
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// After this an answer goes by itself. Longer than its mark is kept, so that no mark outlives its answer.
const KEPT: Duration = Duration::from_secs(25 * 3_600);
/// Aggregates whose answers are removed in one go.
const CLEANED_AT_ONCE: i64 = 100;

#[derive(Serialize)]
struct Answer<'a, A> {
    #[serde(rename = "_id")]
    id: &'a str,
    of: &'a str,
    at: DateTime,
    state: &'a A,
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct Marked<A> {
    answers: Vec<FoundMark<A>>,
    state: A,
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct FoundMark<A> {
    #[serde(default)]
    input: Option<String>,
    #[serde(default)]
    answer: Option<String>,
    /// Kept in the mark by a version before this one.
    #[serde(default = "none")]
    state: Option<A>,
}

fn none<A>() -> Option<A> {
    None
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct FoundAnswer<A> {
    state: A,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noted {
    #[serde(rename = "_id")]
    id: String,
    forget_answers_before: DateTime,
    #[serde(default)]
    answers: Vec<AnswerName>,
}

#[derive(Deserialize)]
struct AnswerName {
    #[serde(default)]
    answer: Option<String>,
}

/// The answers of one kind of aggregates. Clones share their writers.
#[derive(Clone, Debug)]
pub(super) struct FirstAnswers {
    /// The aggregates, whose documents have the marks.
    aggregates: Collection<RawDocumentBuf>,
    answers: Collection<RawDocumentBuf>,
    writers: GroupCommit,
}

impl FirstAnswers {
    pub(super) fn new(store: &MongoStore, collection: &str) -> Self {
        let beside = format!("{collection}.answers");
        Self {
            aggregates: store.collection(collection),
            answers: store.collection(&beside),
            writers: GroupCommit::start(store.database(), &beside, Bulk::Insert),
        }
    }

    /// Makes the indexes that are missing.
    pub(super) async fn prepare(&self) -> Result<(), StoreError> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned());
        let indexes = [
            IndexModel::builder()
                .keys(doc! { "at": 1 })
                .options(named("gone after a day").expire_after(KEPT).build())
                .build(),
            IndexModel::builder()
                .keys(doc! { "of": 1 })
                .options(named("answers of one").build())
                .build(),
        ];
        limited(async { self.answers.create_indexes(indexes).await }).await?;
        let noted = doc! { "forgetAnswersBefore": { "$exists": true } };
        let of_the_noted = IndexModel::builder()
            .keys(doc! { "forgetAnswersBefore": 1 })
            .options(
                named("answers to forget")
                    .partial_filter_expression(noted)
                    .build(),
            )
            .build();
        limited(async { self.aggregates.create_index(of_the_noted).await })
            .await
            .map(drop)
    }

    /// Writes an answer that a mark is going to name. Durable when this returns.
    pub(super) async fn put<A: Aggregate>(
        &self,
        id: Uuid,
        at: DateTime,
        state: &A,
    ) -> Result<(), StoreError> {
        let name = id.to_string();
        let answer = Answer {
            id: &name,
            of: state.id(),
            at,
            state,
        };
        let document = bson::serialize_to_raw_document_buf(&answer).map_err(unwritable)?;
        // Its id is nobody else's: one that is there is this one, sent twice.
        self.writers
            .submit(Statement::of_an_answer(name, id, document))
            .await
            .map(drop)
    }

    /// Removes an answer that no mark names. If that fails, its time to live removes it.
    pub(super) async fn discard(&self, id: Uuid) {
        let removing = async {
            self.answers
                .delete_one(doc! { "_id": id.to_string() })
                .await
        };
        if let Err(error) = limited(removing).await {
            tracing::debug!(%error, "an answer that was not given stays for a day");
        }
    }

    /// Whether a version before this one kept an answer under this request's former name.
    pub(super) async fn is_taken_before(&self, key: &RequestKey) -> Result<bool, StoreError> {
        let Some(before) = &key.before else {
            return Ok(false);
        };
        let reading = async {
            self.aggregates
                .find_one(doc! { "answers.key": before })
                .projection(doc! { "_id": 1 })
                .max_time(SERVER_LIMIT)
                .await
        };
        Ok(limited(reading).await?.is_some())
    }

    pub(super) async fn find<A: Aggregate>(
        &self,
        key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError> {
        let names: Vec<&str> = key.names().collect();
        let any = doc! { "$in": names };
        let reading = async {
            self.aggregates
                .find_one(doc! { "answers.key": any.clone() })
                .projection(doc! { "answers": { "$elemMatch": { "key": any } }, "state": 1 })
                .max_time(SERVER_LIMIT)
                .await
        };
        let Some(document) = limited(reading).await? else {
            return Ok(None);
        };
        let Marked { mut answers, state } = read::<Marked<A>>(&document)?;
        let Some(mark) = answers.pop() else {
            return Ok(None);
        };
        let answered = match (mark.state, mark.answer) {
            (Some(kept), _) => kept,
            (None, Some(answer)) => self.answer(&answer).await?.unwrap_or(state),
            (None, None) => state,
        };
        Ok(Some(FirstAnswer {
            state: answered,
            input: mark.input,
        }))
    }

    async fn answer<A: Aggregate>(&self, id: &str) -> Result<Option<A>, StoreError> {
        let reading = async {
            self.answers
                .find_one(doc! { "_id": id })
                .max_time(SERVER_LIMIT)
                .await
        };
        let found = limited(reading).await?;
        found
            .map(|document: RawDocumentBuf| {
                let raw: &RawDocument = &document;
                read::<FoundAnswer<A>>(raw).map(|answer| answer.state)
            })
            .transpose()
    }

    /// Removes all answers of these aggregates.
    pub(super) async fn remove_of(&self, ids: &[String]) -> Result<(), StoreError> {
        let removing = async {
            self.answers
                .delete_many(doc! { "of": { "$in": ids } })
                .await
        };
        limited(removing).await.map(drop)
    }

    /// Removes the answers that aggregates no longer name, where a change noted that they are to be removed: of one, or of all.
    pub(super) async fn clean(&self, id: Option<&str>) -> Result<(), StoreError> {
        let mut noted = doc! { "forgetAnswersBefore": { "$exists": true } };
        if let Some(id) = id {
            noted.insert("_id", id);
        }
        loop {
            let reading = async {
                let cursor = self
                    .aggregates
                    .find(noted.clone())
                    .projection(doc! { "forgetAnswersBefore": 1, "answers.answer": 1 })
                    .limit(CLEANED_AT_ONCE)
                    .max_time(SERVER_LIMIT)
                    .await?;
                cursor.try_collect::<Vec<_>>().await
            };
            let found = limited(reading).await?;
            if found.is_empty() {
                return Ok(());
            }
            for document in found {
                self.clean_one(read(&document)?).await?;
            }
        }
    }

    async fn clean_one(&self, noted: Noted) -> Result<(), StoreError> {
        let named: Vec<String> = noted
            .answers
            .into_iter()
            .filter_map(|mark| mark.answer)
            .collect();
        let before = noted.forget_answers_before;
        let unnamed: Document = doc! {
            "of": &noted.id,
            "at": { "$lte": before },
            "_id": { "$nin": named },
        };
        limited(async { self.answers.delete_many(unnamed).await }).await?;
        let done = doc! { "_id": &noted.id, "forgetAnswersBefore": before };
        let unset = doc! { "$unset": { "forgetAnswersBefore": "" } };
        limited(async { self.aggregates.update_one(done, unset).await })
            .await
            .map(drop)
    }
}
