//! Group reads: while some reads by id are on their way, those that come share the next one.
//!
//! A read of one document costs MongoDB and the driver nearly all that it costs for the command, and next to nothing for the
//! document. So at most [`AT_ONCE`] commands of a collection are on their way. Who comes while there are fewer reads at once; who comes
//! while there are as many waits for one of them to end, and is read together with all others who wait. So nobody waits where nothing is
//! gained, and a batch is as large as the queue is long: group commit ([`super::group_commit`]) for reads.
//!
//! What is read was asked for before the command was sent, so that a reader sees all that was written before it asked. Each document is
//! handed out as the server sent it: one that cannot be read is a matter of those alone who asked for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::TryStreamExt;
use mongodb::{
    Collection,
    bson::{Document, RawDocument, RawDocumentBuf},
};
use tokio::sync::oneshot;

use super::{
    connection::{SERVER_LIMIT, limited},
    documents::with_ids,
    group_commit::stopped,
};
use tandem_event_path::store::StoreError;

/// Commands on their way at once.
const AT_ONCE: usize = 4;
/// Ids that one command asks for. Who asks for as many has a command of its own.
const BATCH: usize = 100;
/// Reads that wait; a further one has a command of its own.
const QUEUE: usize = 4_000;

/// Documents by their `_id`, as the server sent them.
type Found = Arc<HashMap<String, RawDocumentBuf>>;

/// Reads documents of one collection by their `_id`. Clones share the queue.
#[derive(Clone, Debug)]
pub struct GroupRead {
    collection: Collection<RawDocumentBuf>,
    /// The fields that are read; all if empty.
    projection: Document,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    on_their_way: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    ids: Vec<String>,
    reply: oneshot::Sender<Result<Found, StoreError>>,
}

/// One of the commands on their way. When it ends, a read of those who wait takes its place.
struct Turn<'a>(&'a GroupRead);

/// How a read is carried out.
enum Admission<'a> {
    /// By a command that is not counted.
    Apart,
    /// At once.
    Now(Turn<'a>),
    /// With others.
    Later(oneshot::Receiver<Result<Found, StoreError>>),
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !queue.waiting.is_empty() => {
                drop(queue);
                runtime.spawn(self.0.clone().read_waiting());
            }
            _ => queue.on_their_way -= 1,
        }
    }
}

impl GroupRead {
    /// Reads of these fields, of all if there are none, in the way that the collection has been set up for.
    #[must_use]
    pub fn new(collection: Collection<RawDocumentBuf>, projection: Document) -> Self {
        Self {
            collection,
            projection,
            queue: Arc::default(),
        }
    }

    /// The documents with these ids in their order, each read by `read`; `None` where there is none.
    ///
    /// # Errors
    /// When the server does not answer; what `read` fails with.
    pub async fn get_many<T>(
        &self,
        ids: &[String],
        read: impl Fn(&RawDocument) -> Result<T, StoreError>,
    ) -> Result<Vec<Option<T>>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.found(ids).await?;
        let documents = ids.iter().map(|id| found.get(id));
        documents
            .map(|document| document.map(|document| read(document)).transpose())
            .collect()
    }

    /// The documents with these ids, as far as there are any, perhaps among others.
    async fn found(&self, ids: &[String]) -> Result<Found, StoreError> {
        match self.admit(ids) {
            Admission::Apart => self.find(ids).await,
            Admission::Now(_turn) => self.find(ids).await,
            Admission::Later(answer) => answer.await.map_err(|_| stopped())?,
        }
    }

    fn admit(&self, ids: &[String]) -> Admission<'_> {
        let mut queue = self.lock();
        if ids.len() >= BATCH || queue.waiting.len() >= QUEUE {
            return Admission::Apart;
        }
        if queue.on_their_way < AT_ONCE {
            queue.on_their_way += 1;
            return Admission::Now(Turn(self));
        }
        let (reply, answer) = oneshot::channel();
        let ids = ids.to_vec();
        queue.waiting.push_back(Waiting { ids, reply });
        Admission::Later(answer)
    }

    /// Reads what waits until nothing does.
    async fn read_waiting(self) {
        loop {
            let batch = {
                let mut queue = self.lock();
                let batch = queue.next_batch();
                if batch.is_empty() {
                    queue.on_their_way -= 1;
                    return;
                }
                batch
            };
            let mut ids: Vec<String> = batch
                .iter()
                .flat_map(|waiting| waiting.ids.iter().cloned())
                .collect();
            ids.sort_unstable();
            ids.dedup();
            let found = self.find(&ids).await;
            for waiting in batch {
                // Who does not wait any more needs no answer.
                let _ = waiting.reply.send(found.clone());
            }
        }
    }

    async fn find(&self, ids: &[String]) -> Result<Found, StoreError> {
        let reading = async {
            let mut find = self
                .collection
                .find(with_ids(ids))
                .batch_size(u32::try_from(ids.len() + 1).unwrap_or(u32::MAX))
                .max_time(SERVER_LIMIT);
            if !self.projection.is_empty() {
                find = find.projection(self.projection.clone());
            }
            let documents: Vec<RawDocumentBuf> = find.await?.try_collect().await?;
            Ok(documents)
        };
        let found = limited(reading).await?;
        let by_id = found.into_iter().filter_map(|document| {
            let id = document.get_str("_id").ok()?.to_owned();
            Some((id, document))
        });
        Ok(Arc::new(by_id.collect()))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Those who wait longest, as many as one command is for, without those who have gone away.
    fn next_batch(&mut self) -> Vec<Waiting> {
        let (mut batch, mut ids) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            ids += next.ids.len();
            if ids > BATCH && !batch.is_empty() {
                break;
            }
            let next = self.waiting.pop_front();
            batch.extend(next.filter(|next| !next.reply.is_closed()));
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn waiting(ids: usize) -> (Waiting, oneshot::Receiver<Result<Found, StoreError>>) {
        let (reply, answer) = oneshot::channel();
        let ids = (0..ids).map(|number| number.to_string()).collect();
        (Waiting { ids, reply }, answer)
    }

    #[test]
    fn a_batch_has_no_more_ids_than_a_command_is_for() {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for ids in [60, 30, 20, 99] {
            let (one, answer) = waiting(ids);
            queue.waiting.push_back(one);
            answers.push(answer);
        }
        let batches: Vec<usize> = std::iter::from_fn(|| {
            let batch = queue.next_batch();
            (!batch.is_empty()).then_some(batch.len())
        })
        .collect();
        assert_eq!(batches, [2, 1, 1]);
    }

    #[test]
    fn nothing_is_read_for_those_who_went_away() {
        let mut queue = Queue::default();
        let (gone, answer) = waiting(1);
        drop(answer);
        let (here, _answer) = waiting(2);
        queue.waiting.extend([gone, here]);
        let batch = queue.next_batch();
        assert_eq!(batch.len(), 1);
        assert_eq!(batch.first().unwrap().ids.len(), 2);
    }
}
