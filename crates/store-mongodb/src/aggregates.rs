//! Aggregates in MongoDB, one document each:
//! `{_id, revision, state, pending, waiting, oldestPending, answers, recentEvents}`.
//!
//! `waiting` and `oldestPending` are the number of pending events and the time of the oldest. With them an index alone
//! answers the frequent queries of the relay and the metrics.

mod forgetting_change;
mod indexes;
mod outbox;

use std::{collections::HashSet, marker::PhantomData};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{self, Document, RawDocument, RawDocumentBuf, doc},
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    answers::FirstAnswers,
    bulk::{Bulk, bulk},
    connection::{SERVER_LIMIT, is_duplicate, limited},
    documents::{Mark, PendingDocument, binary, date, read, unwritable},
    group_commit::GroupCommit,
    group_read::GroupRead,
    in_place::{InPlace, Wanted, is_up_to_date},
    lists::Lists,
    published_row::{deletion, published_page, still_as, stored_revision},
    statement::{Statement, one_more, restore, revert},
};
use tandem_event_path::store::{
    AggregateStore, Outcome, PageRequest, PublishedRow, Span, SpanRequest, StoreError, Stored,
    Write,
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// How many documents lose their answers with one command.
const FORGOTTEN_AT_ONCE: i64 = 500;

/// The fields that differ between any two writes of an aggregate: every command adds the id of its event.
const SEEN: [&str; 2] = ["revision", "recentEvents"];

/// Aggregates of one kind in MongoDB. Clones share their writers.
#[derive(Clone, Debug)]
pub struct MongoAggregates<A> {
    store: MongoStore,
    collection: Collection<RawDocumentBuf>,
    reads: GroupRead,
    lists: Lists<A>,
    creations: GroupCommit,
    changes: GroupCommit,
    answers: FirstAnswers,
    aggregate: PhantomData<fn() -> A>,
}

/// An aggregate as a rebuild writes it: no pending events, and no first answers.
#[derive(Serialize)]
struct Restored<'a, A> {
    #[serde(rename = "_id")]
    id: &'a str,
    revision: i64,
    state: &'a A,
}

#[derive(Deserialize)]
#[serde(bound = "A: Aggregate")]
struct StoredDocument<A> {
    #[serde(rename = "_id")]
    id: String,
    state: A,
    #[serde(default)]
    pending: Vec<PendingDocument>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "_id")]
    id: String,
}

#[derive(Deserialize)]
struct AnswerTimes {
    #[serde(rename = "_id")]
    id: String,
    answers: Vec<AnswerTime>,
}

#[derive(Deserialize)]
struct AnswerTime {
    at: bson::DateTime,
}

impl<A: Aggregate> MongoAggregates<A> {
    /// The aggregates in this database. Must be called in a tokio runtime, which then runs the writers.
    #[must_use]
    pub fn new(store: MongoStore) -> Self {
        let writers = |kind| GroupCommit::start(store.database(), A::COLLECTION, kind);
        let (creations, changes) = (writers(Bulk::Insert), writers(Bulk::Update));
        let collection = store.collection(A::COLLECTION);
        let answers = FirstAnswers::new(&store, A::COLLECTION);
        Self {
            store,
            reads: GroupRead::new(collection.clone(), doc! { "state": 1, "pending": 1 }),
            lists: Lists::new(collection.clone()),
            collection,
            creations,
            changes,
            answers,
            aggregate: PhantomData,
        }
    }

    /// The ids of those aggregates that exist.
    async fn there(&self, ids: &[String]) -> Result<HashSet<String>, StoreError> {
        let reading = async {
            let cursor = self
                .collection
                .find(doc! { "_id": { "$in": ids } })
                .projection(doc! { "_id": 1 })
                .max_time(SERVER_LIMIT)
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        let found = limited(reading).await?;
        found
            .iter()
            .map(|document| read::<Named>(document).map(|named| named.id))
            .collect()
    }
}

fn state(document: &RawDocument) -> Option<&RawDocument> {
    document.get_document("state").ok()
}

/// Extends the filter to documents without pending events.
fn nothing_pending(mut filter: Document) -> Document {
    filter.insert("pending.0", doc! { "$exists": false });
    filter
}

#[async_trait]
impl<A: Aggregate> AggregateStore<A> for MongoAggregates<A> {
    async fn get_many(&self, ids: &[String]) -> Result<Vec<Option<Stored<A>>>, StoreError> {
        let stored = |document: &RawDocument| {
            let StoredDocument { id, state, pending } = read::<StoredDocument<A>>(document)?;
            let pending = pending
                .into_iter()
                .map(|pending| pending.into_event(id.clone()))
                .collect::<Result<_, _>>()?;
            Ok(Stored { state, pending })
        };
        self.reads.get_many(ids, stored).await
    }

    async fn write(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        let is_new = write.expected_revision == 0;
        if write.forget_answers && !is_new {
            return self.write_and_forget(write).await;
        }
        let (writers, statement) = if is_new {
            (&self.creations, Statement::creation(write)?)
        } else {
            (&self.changes, Statement::change(write)?)
        };
        let Some(key) = &write.idempotency_key else {
            return writers.submit(statement).await;
        };
        let answer = binary(write.event.event.id);
        let at = date(write.event.recorded_at);
        let put = self.answers.put(answer, at, &write.state);
        // A command that changes an aggregate has looked for an earlier answer before; a command that creates one has
        // not.
        let is_taken = if is_new {
            tokio::try_join!(put, self.answers.is_taken_before(key))?.1
        } else {
            put.await?;
            false
        };
        let outcome = if is_taken {
            Outcome::KeyTaken
        } else {
            writers.submit(statement).await?
        };
        if outcome != Outcome::Written {
            self.answers.discard(answer).await;
        }
        Ok(outcome)
    }

    async fn first_answer(
        &self,
        idempotency_key: &RequestKey,
    ) -> Result<Option<FirstAnswer<A>>, StoreError> {
        self.answers.find(idempotency_key).await
    }

    async fn keep_answer(
        &self,
        idempotency_key: &RequestKey,
        state: &A,
        at: DateTime<Utc>,
    ) -> Result<Outcome, StoreError> {
        let names: Vec<&str> = idempotency_key.names().collect();
        let taken = doc! { "_id": state.id(), "answers.key": { "$in": &names } };
        let filter = doc! {
            "_id": state.id(),
            "revision": state.revision(),
            "answers.key": { "$nin": names },
        };
        let answer = bson::Uuid::new();
        self.answers.put(answer, date(at), state).await?;
        let mark = Mark {
            key: &idempotency_key.key,
            at: date(at),
            input: &idempotency_key.input,
            answer: answer.to_string(),
        };
        let update = doc! { "$push": { "answers": one_more(&mark)? } };
        let writing = async {
            match self.collection.update_one(filter, update).await {
                Ok(done) if done.matched_count > 0 => Ok(Outcome::Written),
                Ok(_) => {
                    let found = self
                        .collection
                        .find_one(taken)
                        .max_time(SERVER_LIMIT)
                        .await?;
                    Ok(found.map_or(Outcome::Stale, |_| Outcome::KeyTaken))
                }
                Err(error) if is_duplicate(&error) => Ok(Outcome::KeyTaken),
                Err(error) => Err(error),
            }
        };
        let outcome = limited(writing).await?;
        if outcome != Outcome::Written {
            self.answers.discard(answer).await;
        }
        Ok(outcome)
    }

    async fn forget_answers(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.answers.clean(None).await?;
        let before = date(before);
        let due = doc! { "answers.key": { "$exists": true }, "answers.at": { "$lt": before } };
        let mut forgotten = 0;
        loop {
            let reading = async {
                let cursor = self
                    .collection
                    .find(due.clone())
                    .projection(doc! { "answers.at": 1 })
                    .limit(FORGOTTEN_AT_ONCE)
                    .max_time(SERVER_LIMIT)
                    .await?;
                cursor.try_collect::<Vec<_>>().await
            };
            let mut ids = Vec::new();
            for document in limited(reading).await? {
                let document: AnswerTimes = read(&document)?;
                forgotten += document
                    .answers
                    .iter()
                    .filter(|answer| answer.at < before)
                    .count() as u64;
                ids.push(document.id);
            }
            if ids.is_empty() {
                return Ok(forgotten);
            }
            let update = doc! { "$pull": { "answers": { "at": { "$lt": before } } } };
            limited(async {
                self.collection
                    .update_many(doc! { "_id": { "$in": ids } }, update)
                    .await
            })
            .await?;
        }
    }

    async fn forget_answers_of(&self, ids: &[String]) -> Result<(), StoreError> {
        // The marks stay, but no longer name an answer.
        let marked = doc! { "_id": { "$in": ids }, "answers.key": { "$exists": true } };
        let update = doc! { "$unset": { "answers.$[].answer": "", "answers.$[].state": "" } };
        limited(async { self.collection.update_many(marked, update).await }).await?;
        self.answers.remove_of(ids).await
    }

    async fn pages(&self, requests: &[PageRequest]) -> Result<Vec<Vec<A>>, StoreError> {
        self.lists.pages(requests).await
    }

    async fn span(&self, request: &SpanRequest) -> Result<Span<A>, StoreError> {
        self.lists.span(request).await
    }

    async fn restore(&self, states: &[A]) -> Result<(), StoreError> {
        let wanted = |state: &A| {
            let document = Restored {
                id: state.id(),
                revision: state.revision(),
                state,
            };
            Ok(Wanted {
                id: state.id().to_owned(),
                document: bson::serialize_to_raw_document_buf(&document).map_err(unwritable)?,
            })
        };
        let in_place = InPlace {
            database: self.store.database(),
            collection: A::COLLECTION,
            shown: doc! { "revision": 1, "state": 1 },
            may_stay: |stored: &RawDocument, wanted: &RawDocument| {
                is_up_to_date(stored, wanted, |stored, wanted| {
                    state(stored) == state(wanted)
                })
            },
            update: |wanted: &Wanted| {
                let document = &wanted.document;
                let state = document.get_document("state").map_err(unwritable)?;
                restore(&wanted.id, stored_revision(document), state)
            },
        };
        // If an update fails with a duplicate `_id`, the stored document has a newer revision.
        in_place.put(states, wanted).await.map(drop)
    }

    async fn published(
        &self,
        after: Option<&PublishedRow>,
        limit: usize,
    ) -> Result<Vec<PublishedRow>, StoreError> {
        let mut filter = nothing_pending(doc! {});
        filter.insert(
            "_id",
            doc! { "$gt": after.map_or("", |seen| seen.id.as_str()) },
        );
        let order = doc! { "_id": 1 };
        published_page(&self.collection, filter, order, limit, "_id", &SEEN).await
    }

    async fn remove(&self, seen: &[PublishedRow]) -> Result<u64, StoreError> {
        let removal = |seen: &PublishedRow| deletion(nothing_pending(still_as(seen)?));
        let database = self.store.database();
        let done = bulk(database, A::COLLECTION, Bulk::Delete, seen, removal).await?;
        let ids: Vec<String> = seen.iter().map(|seen| seen.id.clone()).collect();
        let there = self.there(&ids).await?;
        let gone: Vec<String> = ids.into_iter().filter(|id| !there.contains(id)).collect();
        self.answers.remove_of(&gone).await?;
        Ok(done.matched)
    }

    async fn revert(&self, states: &[(PublishedRow, A)]) -> Result<u64, StoreError> {
        let setting_back =
            |(seen, state): &(PublishedRow, A)| revert(nothing_pending(still_as(seen)?), state);
        let database = self.store.database();
        bulk(database, A::COLLECTION, Bulk::Update, states, setting_back)
            .await
            .map(|done| done.matched)
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.store.ping().await
    }
}
