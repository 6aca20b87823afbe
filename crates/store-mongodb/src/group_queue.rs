//! The queue of group reads: while some commands are in flight, arriving readers share the next one.
//!
//! For a small read, nearly all of the cost for MongoDB and the driver is the command, and very little the documents.
//! So at most [`AT_ONCE`] commands of a kind are in flight. A reader that finds fewer sends its own at once. A reader
//! that finds as many waits until one ends, and is then served together with all other waiting readers. So nobody waits
//! without a benefit, and a batch is as large as the queue is long. It is group commit ([`super::group_commit`]) for
//! reads.
//!
//! A command is sent after all its readers have queued, so each reader sees everything that was written before its
//! request.

use std::{
    collections::VecDeque,
    fmt::Debug,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use super::{group_commit::stopped, spans};
use tandem_event_path::store::StoreError;
use tandem_runtime::trace_context::TraceContext;

/// How many commands are in flight.
const AT_ONCE: usize = 4;
/// Most keys in one command. A reader with as many gets a separate command.
const BATCH: usize = 100;
/// How many reads may wait. A further one gets a separate command.
const QUEUE: usize = 4_000;

/// A command that reads the keys of several readers.
pub(super) trait SharedRead: Clone + Debug + Send + Sync + 'static {
    /// The documents that were found, possibly also for other readers. Cheap to clone.
    type Found: Clone + Send + Sync + 'static;

    /// The collection that is read.
    fn collection(&self) -> &str;

    /// Reads the documents of these keys, which are distinct.
    fn read(&self, keys: &[String])
    -> impl Future<Output = Result<Self::Found, StoreError>> + Send;
}

/// The readers of one kind of command. Clones share the queue.
#[derive(Clone, Debug)]
pub(super) struct GroupQueue<R: SharedRead> {
    command: R,
    queue: Arc<Mutex<Queue<R::Found>>>,
}

#[derive(Debug)]
struct Queue<F> {
    on_their_way: usize,
    waiting: VecDeque<Waiting<F>>,
}

#[derive(Debug)]
struct Waiting<F> {
    keys: Vec<String>,
    /// The trace of the waiting caller, if it is recorded.
    trace: Option<TraceContext>,
    reply: oneshot::Sender<Result<F, StoreError>>,
}

/// The permit for one of the commands in flight. When it is dropped, a read for the waiting callers takes its place.
pub(super) struct Turn<'a, R: SharedRead>(&'a GroupQueue<R>);

/// How a read is executed.
pub(super) enum Admission<'a, R: SharedRead> {
    /// By a separate command that is not counted.
    Apart,
    /// By its own command at once. The permit must be kept until it ends.
    Now(Turn<'a, R>),
    /// Together with others.
    Later(Later<R::Found>),
}

/// A read that waits for its turn.
pub(super) struct Later<F>(oneshot::Receiver<Result<F, StoreError>>);

impl<F> Later<F> {
    /// What was read for all waiting callers.
    ///
    /// # Errors
    /// The error of the command.
    pub(super) async fn found(self) -> Result<F, StoreError> {
        self.0.await.map_err(|_| stopped())?
    }
}

impl<R: SharedRead> Drop for Turn<'_, R> {
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

impl<R: SharedRead> GroupQueue<R> {
    pub(super) fn new(command: R) -> Self {
        let queue = Queue {
            on_their_way: 0,
            waiting: VecDeque::new(),
        };
        Self {
            command,
            queue: Arc::new(Mutex::new(queue)),
        }
    }

    /// The shared command.
    pub(super) fn command(&self) -> &R {
        &self.command
    }

    /// Decides how a read of these keys is executed. `trace` is the caller's, if it is recorded.
    pub(super) fn admit(&self, keys: &[String], trace: Option<TraceContext>) -> Admission<'_, R> {
        let mut queue = self.lock();
        if keys.len() >= BATCH || queue.waiting.len() >= QUEUE {
            return Admission::Apart;
        }
        if queue.on_their_way < AT_ONCE {
            queue.on_their_way += 1;
            return Admission::Now(Turn(self));
        }
        let (reply, answer) = oneshot::channel();
        let keys = keys.to_vec();
        queue.waiting.push_back(Waiting { keys, trace, reply });
        Admission::Later(Later(answer))
    }

    /// The documents of these keys, possibly among others.
    ///
    /// # Errors
    /// The error of the command.
    pub(super) async fn found(&self, keys: &[String]) -> Result<R::Found, StoreError> {
        let recorded = spans::command("find", self.command.collection());
        match self.admit(keys, recorded.context()) {
            Admission::Apart => self.command.read(keys).await,
            Admission::Now(_turn) => self.command.read(keys).await,
            Admission::Later(later) => later.found().await,
        }
    }

    /// Reads for the waiting callers until none is left.
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
            let mut keys: Vec<String> = batch
                .iter()
                .flat_map(|waiting| waiting.keys.iter().cloned())
                .collect();
            keys.sort_unstable();
            keys.dedup();
            let traces = batch.iter().map(|waiting| waiting.trace);
            let recorded = spans::shared("find", self.command.collection(), traces);
            let found = self.command.read(&keys).await;
            drop(recorded);
            for waiting in batch {
                // The caller may have gone away.
                let _ = waiting.reply.send(found.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<R::Found>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Queue<F> {
    /// The callers that have waited longest, as many as one command can serve, without those that have gone away.
    fn next_batch(&mut self) -> Vec<Waiting<F>> {
        let (mut batch, mut keys) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front() {
            keys += next.keys.len();
            if keys > BATCH && !batch.is_empty() {
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

    type Answer = oneshot::Receiver<Result<(), StoreError>>;

    fn waiting(keys: usize) -> (Waiting<()>, Answer) {
        let (reply, answer) = oneshot::channel();
        let keys = (0..keys).map(|number| number.to_string()).collect();
        let waiting = Waiting {
            keys,
            trace: None,
            reply,
        };
        (waiting, answer)
    }

    fn empty() -> Queue<()> {
        Queue {
            on_their_way: 0,
            waiting: VecDeque::new(),
        }
    }

    #[test]
    fn a_batch_has_no_more_keys_than_a_command_is_for() {
        let mut queue = empty();
        let mut answers = Vec::new();
        for keys in [60, 30, 20, 99] {
            let (one, answer) = waiting(keys);
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
        let mut queue = empty();
        let (gone, answer) = waiting(1);
        drop(answer);
        let (here, _answer) = waiting(2);
        queue.waiting.extend([gone, here]);
        let batch = queue.next_batch();
        assert_eq!(batch.len(), 1);
        assert_eq!(batch.first().unwrap().keys.len(), 2);
    }
}
