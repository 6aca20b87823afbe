//! The queue of group reads: while some commands are on their way, the readers who come share the next one.
//!
//! A small read costs MongoDB and the driver nearly all that it costs for the command, and next to nothing for the documents. So at most
//! [`AT_ONCE`] commands of a kind are on their way. Who comes while there are fewer reads at once; who comes while there are as many
//! waits for one of them to end, and is read together with all others who wait. So nobody waits where nothing is gained, and a batch is as
//! large as the queue is long: group commit ([`super::group_commit`]) for reads.
//!
//! What is read was asked for before the command was sent, so that a reader sees all that was written before it asked.

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

/// Commands on their way at once.
const AT_ONCE: usize = 4;
/// Keys that one command asks for. A caller that asks for as many has a command of its own.
const BATCH: usize = 100;
/// Reads that wait; a further one has a command of its own.
const QUEUE: usize = 4_000;

/// A command that reads what several readers ask for.
pub(super) trait SharedRead: Clone + Debug + Send + Sync + 'static {
    /// What was found, perhaps for others too. Cheap to clone.
    type Found: Clone + Send + Sync + 'static;

    /// What is read.
    fn collection(&self) -> &str;

    /// Reads what these keys name, each of them once.
    fn read(&self, keys: &[String])
    -> impl Future<Output = Result<Self::Found, StoreError>> + Send;
}

/// The readers of one kind of command. Clones share it.
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
    /// The trace of the caller that waits, where it is recorded.
    trace: Option<TraceContext>,
    reply: oneshot::Sender<Result<F, StoreError>>,
}

/// One of the commands on their way. When it ends, a read of those who wait takes its place.
pub(super) struct Turn<'a, R: SharedRead>(&'a GroupQueue<R>);

/// How a read is carried out.
pub(super) enum Admission<'a, R: SharedRead> {
    /// By a command of its own that is not counted.
    Apart,
    /// By a command of its own at once, during which this is kept.
    Now(Turn<'a, R>),
    /// With others.
    Later(Later<R::Found>),
}

/// A read that waits for its turn.
pub(super) struct Later<F>(oneshot::Receiver<Result<F, StoreError>>);

impl<F> Later<F> {
    /// What was read for all who waited.
    ///
    /// # Errors
    /// What the command failed with.
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

    /// The command that is shared.
    pub(super) fn command(&self) -> &R {
        &self.command
    }

    /// Says how a read of these keys, which is recorded there, is carried out now.
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

    /// What these keys name, perhaps among others.
    ///
    /// # Errors
    /// What the command failed with.
    pub(super) async fn found(&self, keys: &[String]) -> Result<R::Found, StoreError> {
        let recorded = spans::command("find", self.command.collection());
        match self.admit(keys, recorded.context()) {
            Admission::Apart => self.command.read(keys).await,
            Admission::Now(_turn) => self.command.read(keys).await,
            Admission::Later(later) => later.found().await,
        }
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
                // A caller that has gone away needs no answer.
                let _ = waiting.reply.send(found.clone());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue<R::Found>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> Queue<F> {
    /// Those who wait longest, as many as one command is for, without those who have gone away.
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
