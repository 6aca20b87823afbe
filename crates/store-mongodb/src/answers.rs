//! First answers in MongoDB. They have their own collection, because they could fill an aggregate's document (16 MiB).
//!
//! A small mark in the aggregate's own document, `answers: [{key, at, input, answer}]`, says that a key was used. It is
//! written in the same atomic step as state and event. The answer to the request is a separate document,
//! `{_id, of, at, state}`. It is written **before** that step and found only through the mark. A crash in between
//! leaves an answer without a mark; an index with a time to live removes it after a day, like all others. If a mark's
//! answer is gone, the request is answered with the current state.
//!
//! A change that must forget earlier answers removes their names from the marks in its own step, so that these requests
//! are answered with the current state. It also sets a note that answers are to be removed (`forgetAnswersBefore`),
//! which is deleted when that is done. The marks stay, because a repeated request must not run a second time. Earlier
//! versions kept the states in the marks.

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

/// The time to live of an answer. It is longer than that of its mark, so that no mark outlives its answer.
const KEPT: Duration = Duration::from_secs(25 * 3_600);
/// How many aggregates are cleaned of their answers in one round.
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
    /// The state, where an earlier version kept it in the mark.
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

/// The first answers of one kind of aggregate. Clones share their writers.
#[derive(Clone, Debug)]
pub(super) struct FirstAnswers {
    /// The collection of the aggregates, whose documents contain the marks.
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

    /// Creates the missing indexes.
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

    /// Writes an answer that a mark will name. It is durable when this returns.
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
        // The id is unique. If it exists already, it is this answer, sent twice.
        self.writers
            .submit(Statement::of_an_answer(name, id, document))
            .await
            .map(drop)
    }

    /// Removes an answer that no mark names. If this fails, its time to live removes it.
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

    /// Whether an earlier version stored an answer under this request's former name.
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

    /// Removes the answers that their aggregates no longer name, where a change has set the note: for one aggregate, or
    /// for all.
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
