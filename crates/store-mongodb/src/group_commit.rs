//! Group commit: writes in flight share `insert` or `update` commands, and each writer still gets its own result.
//!
//! New aggregates are inserted. This costs MongoDB half of an upsert, because it writes the inserts of a command
//! together. Changes are updates, with their own writers.
//!
//! Two writers share one queue. One takes the waiting statements, sends them as one command and answers each caller.
//! Meanwhile the other one collects the next batch. More writers would only make the batches smaller.
//!
//! A single statement is sent at once. If the previous batch had several statements, as many are probably about to
//! arrive again, because their callers were answered together. So the next batch waits for them, at most
//! [`GATHERING_LIMIT`].
//!
//! # Two commands of this process for the same document
//! This is safe, so statements with the same `_id` are not kept apart. MongoDB changes a document atomically, whichever
//! command the change comes from. If two writes expect the same revision, the second finds another one and is refused.
//! A write that expects a later revision was decided on a state that had been read, so its predecessor is already
//! written. The statements within one command are not ordered either.
//!
//! # Sending a command again
//! `run_command` has no retryable writes and needs none. Every write names the revision that it expects, so it is
//! executed at most once even if it is sent twice. The second attempt is then refused as if another writer had been
//! faster. So the writer reads the document and looks for the id of the write's own event. It reads with majority read
//! concern, at or after the time of the refusal, so that a deposed primary that does not know it cannot answer.
#![expect(clippy::disallowed_methods, reason = "it waits for a real server")]

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mongodb::{
    Database,
    bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, Timestamp, Uuid, doc},
};
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc, oneshot};

use super::{
    bulk::{Bulk, Concern},
    connection::{SERVER_LIMIT, milliseconds},
    documents::{read, unwritable},
    error::is_passing,
    reason::sentence,
    reply::{Fate, Fates},
    spans,
    statement::{RECENT_EVENTS, Statement},
};
use tandem_event_path::store::{Outcome, StoreError};
use tandem_runtime::{
    backoff::{Backoff, Pauses},
    clock::Clock,
    trace_context::TraceContext,
};

/// How many commands are in flight.
const WRITERS: usize = 2;
/// Most statements in one command.
const BATCH: usize = 500;
/// Size in bytes after which a command gets no further statement. A command may have 16 MiB, and one statement may be
/// large.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// How long a batch waits for as many statements as the previous one had.
const GATHERING_LIMIT: Duration = Duration::from_millis(4);
/// How many statements may wait. Further callers wait until there is room in the queue.
const QUEUE: usize = 2_000;
/// The time limit for one attempt, on this side.
const SENDING_LIMIT: Duration = Duration::from_secs(6);
/// How long a command is retried, from the first attempt on.
const RETRY_LIMIT: Duration = Duration::from_secs(10);
/// The pauses between two attempts.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(25), Duration::from_secs(1));

type Answer = Result<Outcome, StoreError>;

#[derive(Debug)]
struct Waiting {
    statement: Statement,
    /// The trace of the waiting caller, if it is recorded.
    trace: Option<TraceContext>,
    reply: oneshot::Sender<Answer>,
}

/// The queue of a collection's writers. When the last clone is dropped, they finish their work and end.
#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Waiting>,
    kind: Bulk,
    collection: Arc<str>,
}

/// The state that the writers share.
#[derive(Debug)]
struct Queue {
    waiting: mpsc::Receiver<Waiting>,
    /// The size of the last batch.
    last: usize,
}

impl Queue {
    /// The next batch; `None` after the end of the queue.
    async fn next_batch(&mut self) -> Option<Vec<Waiting>> {
        let first = self.waiting.recv().await?;
        let mut bytes = first.statement.document.as_bytes().len();
        let mut batch = vec![first];
        let until = tokio::time::Instant::now() + GATHERING_LIMIT;
        while batch.len() < BATCH && bytes < BATCH_BYTES {
            let next = match self.waiting.try_recv() {
                Ok(next) => next,
                Err(_) if batch.len() >= self.last => break,
                Err(_) => match tokio::time::timeout_at(until, self.waiting.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => break,
                },
            };
            bytes += next.statement.document.as_bytes().len();
            batch.push(next);
        }
        self.last = batch.len();
        Some(batch)
    }
}

impl GroupCommit {
    /// Starts the writers of commands of this kind.
    pub(super) fn start(database: &Database, collection: &str, kind: Bulk) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(Queue { waiting, last: 0 }));
        for _ in 0..WRITERS {
            let writer = Writer {
                database: database.clone(),
                collection: collection.to_owned(),
                kind,
                waiting: Arc::clone(&waiting),
            };
            tokio::spawn(writer.run());
        }
        Self {
            queue,
            kind,
            collection: collection.into(),
        }
    }

    /// Queues a statement and waits for its result.
    pub(super) async fn submit(&self, statement: Statement) -> Answer {
        let (reply, answer) = oneshot::channel();
        let recorded = spans::command(self.kind.name(), &self.collection);
        let trace = recorded.context();
        self.queue
            .send(Waiting {
                statement,
                trace,
                reply,
            })
            .await
            .map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// The error for callers whose writer has ended.
pub(super) fn stopped() -> StoreError {
    StoreError::Unavailable("the connection to MongoDB has been closed".to_owned())
}

struct Writer {
    database: Database,
    collection: String,
    kind: Bulk,
    waiting: Arc<Mutex<Queue>>,
}

/// Why a command, or the check afterwards, gave no result.
enum Undecided {
    /// A retry may help.
    Passing(String),
    /// A retry would not help.
    Failed(StoreError),
}

impl Writer {
    async fn run(self) {
        loop {
            // This is a separate statement, so that the lock is released before the batch is sent.
            let next = self.waiting.lock().await.next_batch().await;
            let Some(batch) = next else { return };
            self.settle(batch).await;
        }
    }

    /// Sends a batch, with retries, until each caller has its answer or the time limit is exceeded.
    async fn settle(&self, mut batch: Vec<Waiting>) {
        let traces = batch.iter().map(|waiting| waiting.trace);
        let _recorded = spans::shared(self.kind.name(), &self.collection, traces);
        let started = Instant::now();
        let mut pauses: Option<Pauses> = None;
        let mut sent_before = false;
        loop {
            let reason = match self.attempt(&mut batch, sent_before).await {
                Ok(reason) => reason,
                Err(Undecided::Passing(reason)) => reason,
                Err(Undecided::Failed(error)) => {
                    let message = match error {
                        StoreError::Unavailable(why) => why,
                        other => other.to_string(),
                    };
                    for waiting in batch {
                        answer(waiting, Err(StoreError::Unavailable(message.clone())));
                    }
                    return;
                }
            };
            if batch.is_empty() {
                return;
            }
            let pause = pauses
                .get_or_insert_with(|| BACKOFF.pauses(&Clock::default()))
                .next_pause();
            if started.elapsed() + pause > RETRY_LIMIT {
                tracing::warn!(collection = %self.collection, statements = batch.len(), %reason, "MongoDB does not take writes");
                for waiting in batch {
                    answer(waiting, Err(StoreError::Unavailable(reason.clone())));
                }
                return;
            }
            tracing::debug!(collection = %self.collection, statements = batch.len(), %reason, "sending again");
            sent_before = true;
            tokio::time::sleep(pause).await;
        }
    }

    /// Sends a batch once and answers every caller whose result is known then. The others stay in the batch; returns
    /// the reason.
    async fn attempt(
        &self,
        batch: &mut Vec<Waiting>,
        sent_before: bool,
    ) -> Result<String, Undecided> {
        let reply = self.send(batch).await?;
        let fates = Fates::read(reply, batch.len())
            .map_err(Undecided::Failed)?
            .map_err(Undecided::Passing)?;
        let doubtful = |waiting: &Waiting, fate: &Fate| match fate {
            Fate::NoMatch => sent_before || waiting.statement.idempotency_key.is_some(),
            Fate::KeyTaken => sent_before,
            _ => false,
        };
        let ids: Vec<&str> = batch
            .iter()
            .zip(&fates.fates)
            .filter(|(waiting, fate)| doubtful(waiting, fate))
            .map(|(waiting, _)| waiting.statement.id.as_str())
            .collect();
        let seen = if ids.is_empty() {
            Ok(HashMap::new())
        } else {
            self.look(&ids, fates.decided_at).await
        };
        let (seen, mut reason) = match seen {
            Ok(seen) => (Some(seen), String::new()),
            Err(Undecided::Passing(reason)) => (None, reason),
            Err(failed) => return Err(failed),
        };
        let mut undecided = Vec::new();
        for (waiting, fate) in std::mem::take(batch).into_iter().zip(fates.fates) {
            if doubtful(&waiting, &fate) {
                match &seen {
                    Some(seen) => {
                        let outcome = waiting.statement.judge(seen, &fate, sent_before);
                        answer(waiting, outcome);
                    }
                    None => undecided.push(waiting),
                }
                continue;
            }
            match fate {
                Fate::Done => answer(waiting, Ok(Outcome::Written)),
                Fate::NoMatch => answer(waiting, Ok(Outcome::Stale)),
                Fate::KeyTaken => answer(waiting, Ok(Outcome::KeyTaken)),
                Fate::Failed(message) => answer(waiting, Err(StoreError::Unavailable(message))),
                Fate::Passing(message) => {
                    reason = message;
                    undecided.push(waiting);
                }
            }
        }
        *batch = undecided;
        Ok(reason)
    }

    async fn send(&self, batch: &[Waiting]) -> Result<Document, Undecided> {
        let mut statements = RawArrayBuf::new();
        for waiting in batch {
            statements.push(waiting.statement.document.clone());
        }
        let command = self
            .kind
            .command(&self.collection, statements, Concern::Majority)
            .map_err(Undecided::Failed)?;
        let sending = async { self.database.run_raw_command(command).await };
        limited(sending).await
    }

    /// Reads the documents with these ids with majority read concern, at or after `since`.
    async fn look(
        &self,
        ids: &[&str],
        since: Option<Timestamp>,
    ) -> Result<HashMap<String, Seen>, Undecided> {
        let mut concern = doc! { "level": "majority" };
        if let Some(since) = since {
            concern.insert("afterClusterTime", since);
        }
        let command = doc! {
            "find": &self.collection,
            "filter": { "_id": { "$in": ids } },
            "projection": { "revision": 1, "recentEvents": 1, "answers.key": 1 },
            "batchSize": i64::try_from(ids.len()).unwrap_or(i64::MAX),
            "singleBatch": true,
            "maxTimeMS": milliseconds(SERVER_LIMIT),
            "readConcern": concern,
        };
        let reply = limited(async { self.database.run_command(command).await }).await?;
        let documents = reply
            .get_document("cursor")
            .and_then(|cursor| cursor.get_array("firstBatch"))
            .map_err(|error| Undecided::Failed(unwritable(error)))?;
        documents
            .iter()
            .filter_map(Bson::as_document)
            .map(|document| {
                let raw = RawDocumentBuf::try_from(document).map_err(unwritable)?;
                let seen: Seen = read(&raw)?;
                Ok((seen.id.clone(), seen))
            })
            .collect::<Result<_, StoreError>>()
            .map_err(Undecided::Failed)
    }
}

async fn limited<T>(
    operation: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, Undecided> {
    match tokio::time::timeout(SENDING_LIMIT, operation).await {
        Err(_) => Err(Undecided::Passing(format!(
            "no answer within {} s",
            SENDING_LIMIT.as_secs()
        ))),
        Ok(Err(error)) if is_passing(&error) => Err(Undecided::Passing(sentence(&error))),
        Ok(Err(error)) => Err(Undecided::Failed(super::away(error))),
        Ok(Ok(value)) => Ok(value),
    }
}

fn answer(waiting: Waiting, answer: Answer) {
    // The caller may have gone away.
    let _ = waiting.reply.send(answer);
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seen {
    #[serde(rename = "_id")]
    id: String,
    /// Absent in a first answer.
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    recent_events: Vec<Uuid>,
    #[serde(default)]
    answers: Vec<SeenAnswer>,
}

#[derive(Debug, Deserialize)]
struct SeenAnswer {
    key: String,
}

impl Statement {
    /// The result of a refused write, from the content of its document.
    fn judge(&self, seen: &HashMap<String, Seen>, fate: &Fate, sent_before: bool) -> Answer {
        let refused = if *fate == Fate::KeyTaken {
            Outcome::KeyTaken
        } else {
            Outcome::Stale
        };
        let Some(seen) = seen.get(&self.id) else {
            return Ok(refused);
        };
        if seen.recent_events.contains(&self.event) {
            return Ok(Outcome::Written);
        }
        if sent_before && seen.revision - self.expected_revision > RECENT_EVENTS {
            // It may have been written, and followed by so many other writes that the document no longer has the id of
            // its event.
            return Err(StoreError::Unavailable(
                "it cannot be told whether the change was written".to_owned(),
            ));
        }
        let has_key = self.idempotency_key.as_ref().is_some_and(|key| {
            let is_this = |name| seen.answers.iter().any(|answer| answer.key == name);
            key.names().any(is_this)
        });
        Ok(if has_key { Outcome::KeyTaken } else { refused })
    }
}
