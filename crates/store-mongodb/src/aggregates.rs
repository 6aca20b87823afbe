//! Aggregates in MongoDB, one document each: `{_id, revision, state, pending, waiting, oldestPending, answers, recentEvents}`.
//!
//! `waiting` and `oldestPending` say how many events are pending and since when, so that an index alone answers what the
//! relay and the metrics ask all the time.

use std::{
    collections::{HashMap, HashSet},
    marker::PhantomData,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use mongodb::{
    Collection, IndexModel,
    bson::{self, Bson, Document, RawDocument, RawDocumentBuf, doc},
    options::{Hint, IndexOptions},
};
use serde::{Deserialize, Serialize};

use super::{
    MongoStore,
    answers::{FirstAnswers, Mark},
    bulk::{Bulk, bulk},
    connection::{SERVER_LIMIT, is_duplicate, limited, milliseconds, write_concern},
    documents::{PendingDocument, binary, date, read, time, unwritable},
    group_commit::GroupCommit,
    group_read::GroupRead,
    in_place::{InPlace, Wanted, is_up_to_date},
    lists::{self, Lists},
    published_row::{deletion, published_page, still_as, stored_revision},
    statement::{Statement, clear_all, clear_up_to, forgetting_change, one_more, restore, revert},
};
use tandem_event_path::{
    outbox::{Backlog, Outbox, PendingEvent},
    store::{
        AggregateStore, Outcome, PageRequest, PublishedRow, Span, SpanRequest, StoreError, Stored,
        Write,
    },
};
use tandem_model::{
    aggregate::Aggregate,
    request_key::{FirstAnswer, RequestKey},
};

/// Documents whose answers are forgotten with one command.
const FORGOTTEN_AT_ONCE: i64 = 500;

/// Documents whose published events are cleared with one command.
const CLEARED_AT_ONCE: usize = 500;
/// What differs from one writing of an aggregate to the next: every command leaves the id of its event.
const SEEN: [&str; 2] = ["revision", "recentEvents"];

/// Index of those with pending events: their ids, since when and how many. One for both questions of the relay, since every change puts
/// an entry into it and takes it out again.
const OUTBOX_INDEX: &str = "outbox";

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

/// What a rebuild makes: nothing is pending, and no first answer is known.
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
struct PendingOf {
    #[serde(rename = "_id")]
    id: String,
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

#[derive(Deserialize)]
struct BacklogDocument {
    events: i64,
    oldest: bson::DateTime,
}

impl<A: Aggregate> MongoAggregates<A> {
    /// The aggregates in this database. Must be called within a tokio runtime, on which its writers then run.
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

    /// Makes the indexes that are missing. To be called until it succeeds, before the first command is taken: one of
    /// the indexes is what keeps idempotency keys apart. Several instances may do it at once.
    ///
    /// # Errors
    /// When the server does not answer, or has other indexes under these names.
    pub async fn prepare(&self) -> Result<(), StoreError> {
        let named = |name: &str| IndexOptions::builder().name(name.to_owned());
        let is_pending = doc! { "oldestPending": { "$exists": true } };
        let has_answers = doc! { "answers.key": { "$exists": true } };
        let mut indexes = vec![
            IndexModel::builder()
                .keys(doc! { "answers.key": 1 })
                .options(
                    named("answers by key")
                        .unique(true)
                        .partial_filter_expression(has_answers.clone())
                        .build(),
                )
                .build(),
            IndexModel::builder()
                .keys(doc! { "answers.at": 1 })
                .options(
                    named("answers by time")
                        .partial_filter_expression(has_answers)
                        .build(),
                )
                .build(),
            IndexModel::builder()
                .keys(doc! { "_id": 1, "oldestPending": 1, "waiting": 1 })
                .options(
                    named(OUTBOX_INDEX)
                        .partial_filter_expression(is_pending)
                        .build(),
                )
                .build(),
        ];
        for fields in A::INDEXES {
            let mut keys: Document = fields
                .iter()
                .map(|field| (format!("state.{field}"), Bson::Int32(1)))
                .collect();
            keys.insert("_id", 1);
            indexes.push(
                IndexModel::builder()
                    .keys(keys)
                    .options(named(&lists::index_name(fields)).build())
                    .build(),
            );
        }
        limited(async { self.collection.create_indexes(indexes).await }).await?;
        self.answers.prepare().await
    }

    /// Carries out statements that clear. Answers how many documents they matched.
    async fn forget_pending(&self, updates: Vec<Document>) -> Result<usize, StoreError> {
        let command = doc! {
            "update": A::COLLECTION,
            "updates": updates,
            "ordered": false,
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "writeConcern": write_concern(),
        };
        let reply = limited(async { self.store.database().run_command(command).await }).await?;
        if let Some(error) = reply
            .get_array("writeErrors")
            .ok()
            .and_then(|all| all.first())
        {
            return Err(StoreError::Away(format!(
                "published events stay pending: {error}"
            )));
        }
        let matched = reply.get_i32("n").unwrap_or_default();
        Ok(usize::try_from(matched).unwrap_or_default())
    }

    /// Which of these aggregates are there.
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

    /// Removes the answers that a change has forgotten. If that fails now, it is done with the next look for old ones.
    async fn clean(&self, id: &str) {
        if let Err(error) = self.answers.clean(Some(id)).await {
            tracing::warn!(%error, "answers that are forgotten could not be removed; trying again later");
        }
    }

    /// Writes a change after which nothing is left of the answers before it. A command of its own: such changes are rare, and what
    /// rewrites the marks is a pipeline, which no other statement is.
    async fn write_and_forget(&self, write: &Write<A>) -> Result<Outcome, StoreError> {
        let answer = binary(write.event.event.id);
        let names: Vec<&str> = match &write.idempotency_key {
            Some(key) => {
                let at = date(write.event.recorded_at);
                self.answers.put(answer, at, &write.state).await?;
                key.names().collect()
            }
            None => Vec::new(),
        };
        let (id, expected) = (write.state.id(), write.expected_revision);
        let filter = doc! { "_id": id, "revision": expected, "answers.key": { "$nin": &names } };
        let done = doc! { "_id": id, "recentEvents": answer };
        let update = forgetting_change(write)?;
        let writing = async {
            let matched = match self.collection.update_one(filter, update).await {
                Ok(done) => done.matched_count > 0,
                Err(error) if is_duplicate(&error) => return Ok(Outcome::KeyTaken),
                Err(error) => return Err(error),
            };
            // Sent twice after a failure, the second finds what the first has done.
            if matched || self.collection.count_documents(done).await? > 0 {
                return Ok(Outcome::Written);
            }
            let stored = doc! { "_id": id, "revision": expected };
            let is_there = self.collection.count_documents(stored).await? > 0;
            // The revision is the expected one, so it was the key that kept the filter from matching.
            Ok(if is_there {
                Outcome::KeyTaken
            } else {
                Outcome::Stale
            })
        };
        let outcome = limited(writing).await?;
        if outcome == Outcome::Written {
            self.clean(id).await;
        } else if write.idempotency_key.is_some() {
            self.answers.discard(answer).await;
        }
        Ok(outcome)
    }
}

fn state(document: &RawDocument) -> Option<&RawDocument> {
    document.get_document("state").ok()
}

/// The same filter for documents of which nothing is pending.
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
        // Who changes an aggregate has looked for an answer before; who makes one has not.
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
        // The marks stay, and name no answer any more.
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
        // An update that meets a duplicate `_id` met a newer revision.
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

#[async_trait]
impl<A: Aggregate> Outbox for MongoAggregates<A> {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        limit: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        // The bound on the id stands here and below also when any will do: without one MongoDB would not look for the date in the index.
        let filter = doc! {
            "_id": { "$gt": after_key.unwrap_or_default() },
            "oldestPending": { "$lte": date(recorded_before) },
        };
        // Each document has at least one event, so `limit` documents suffice; reading stops when there are enough events.
        let reading = async {
            let mut cursor = self
                .collection
                .find(filter)
                .projection(doc! { "pending": 1 })
                .sort(doc! { "_id": 1 })
                .hint(Hint::Name(OUTBOX_INDEX.to_owned()))
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .max_time(SERVER_LIMIT)
                .await?;
            let (mut documents, mut events) = (Vec::new(), 0);
            while events < limit {
                let Some(document) = cursor.try_next().await? else {
                    break;
                };
                let document: PendingOf = bson::deserialize_from_slice(document.as_bytes())?;
                events += document.pending.len();
                documents.push(document);
            }
            Ok(documents)
        };
        let mut events = Vec::new();
        for document in limited(reading).await? {
            for pending in document.pending {
                events.push(pending.into_event(document.id.clone())?);
            }
        }
        Ok(events)
    }

    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError> {
        for some in published.chunks(CLEARED_AT_ONCE) {
            // Most are of one revision: a statement for each revision costs MongoDB less than one for each aggregate.
            let mut of_revision: HashMap<i64, Vec<&str>> = HashMap::new();
            for (id, revision) in some {
                of_revision.entry(*revision).or_default().push(id);
            }
            let all = of_revision
                .iter()
                .map(|(revision, ids)| clear_all(ids, *revision));
            let cleared = self.forget_pending(all.collect()).await?;
            // Some have newer events by now, or are clear already: MongoDB does not say which.
            if cleared < some.len() {
                let parts = some.iter().map(|(id, revision)| clear_up_to(id, *revision));
                self.forget_pending(parts.collect()).await?;
            }
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        // Any date is greater than this one: written so, MongoDB sees that the index covers it.
        let any = doc! { "$gt": bson::DateTime::MIN };
        let pipeline = vec![
            doc! { "$match": { "_id": { "$gt": "" }, "oldestPending": any } },
            doc! { "$group": { "_id": null, "events": { "$sum": "$waiting" }, "oldest": { "$min": "$oldestPending" } } },
        ];
        let reading = async {
            let cursor = self
                .collection
                .aggregate(pipeline)
                .hint(Hint::Name(OUTBOX_INDEX.to_owned()))
                .max_time(SERVER_LIMIT)
                .with_type::<BacklogDocument>()
                .await?;
            cursor.try_collect::<Vec<_>>().await
        };
        let Some(found) = limited(reading).await?.pop() else {
            return Ok(Backlog::default());
        };
        Ok(Backlog {
            events: u64::try_from(found.events).unwrap_or_default(),
            oldest: Some(time(found.oldest)?),
        })
    }
}
