//! Group commit: one thread owns the write transactions, and all waiting changes share the next one and its flush to
//! disk.
//!
//! Nothing waits in the hope of a larger batch. A single change is committed at once, and changes that arrive meanwhile
//! share the next transaction.
//!
//! A file that failed (full disk, lost device) is unusable until it is opened again. So it is closed and reopened, with
//! pauses, until that succeeds. Meanwhile every change is refused. No change is half done, and nothing is acknowledged
//! that is not on disk.
#![expect(clippy::disallowed_methods, reason = "the broker runs on real time")]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use redb::Database;
use tandem_runtime::{
    backoff::{Backoff, Pauses},
    clock::Clock,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{
    changes::{Changes, Effect},
    failure::Failure,
    state::{State, Unusable, load},
    topics::Topics,
};

/// Most changes in one transaction.
const MOST_AT_ONCE: usize = 1024;
/// Most bytes in one transaction.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// Most bytes of waiting changes, in units of 1 KiB. Further callers wait for space.
const QUEUE_UNITS: usize = 64 * 1024;
const UNIT: usize = 1024;
/// The pauses between attempts to reopen a failed file.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// The file cannot be written now; a retry may succeed soon. It is unknown whether the change was stored. An idempotent
/// producer can send it again without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log cannot be written or read now")]
pub(crate) struct Unavailable;

/// The state that readers see.
#[derive(Debug)]
pub(super) struct Shared {
    /// The file; `None` while it is unusable.
    pub(super) database: RwLock<Option<Arc<Database>>>,
    /// The topics after the last commit.
    pub(super) topics: RwLock<Arc<Topics>>,
}

impl Shared {
    fn set_database(&self, database: Option<Arc<Database>>) {
        *self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner) = database;
    }

    fn set_topics(&self, topics: Arc<Topics>) {
        *self.topics.write().unwrap_or_else(PoisonError::into_inner) = topics;
    }
}

/// Opens the file, at the start and after a failure.
pub(crate) type Opener = Arc<dyn Fn() -> Result<Database, redb::DatabaseError> + Send + Sync>;

trait Job: Send {
    fn bytes(&self) -> usize;
    fn run(&mut self, changes: &mut Changes<'_>) -> Result<(), Failure>;
    fn answer(self: Box<Self>, is_durable: bool);
}

struct TypedJob<T, F> {
    bytes: usize,
    work: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, Unavailable>>,
    _room: OwnedSemaphorePermit,
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send,
    F: FnOnce(&mut Changes<'_>) -> Result<T, Failure> + Send,
{
    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, changes: &mut Changes<'_>) -> Result<(), Failure> {
        if let Some(work) = self.work.take() {
            self.result = Some(work(changes)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, is_durable: bool) {
        let answer = self.result.filter(|_| is_durable).ok_or(Unavailable);
        // The caller may have gone away.
        let _ = self.reply.send(answer);
    }
}

/// The answer to a change, once it is durable.
pub(crate) type Pending<T> = oneshot::Receiver<Result<T, Unavailable>>;

/// The queue of the writer thread. When it is dropped, the thread commits the waiting changes and ends.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Option<Sender<Box<dyn Job>>>,
    room: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
}

impl Committer {
    pub(super) fn start(
        open: Opener,
        database: Arc<Database>,
        state: State,
        ended: oneshot::Sender<()>,
    ) -> std::io::Result<(Self, Arc<Shared>)> {
        let shared = Arc::new(Shared {
            database: RwLock::new(Some(Arc::clone(&database))),
            topics: RwLock::new(Arc::clone(&state.topics)),
        });
        let (queue, jobs) = channel();
        let writer = Writer {
            open,
            shared: Arc::clone(&shared),
            jobs,
            file: File::Open(database),
            pauses: BACKOFF.pauses(&Clock::default()),
            state,
            _ended: ended,
        };
        let writer = std::thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())?;
        let committer = Self {
            queue: Some(queue),
            room: Arc::new(Semaphore::new(QUEUE_UNITS)),
            writer: Some(writer),
        };
        Ok((committer, shared))
    }

    /// Submits a change to the writer, in the order of the calls, and waits for space in the queue. `work` runs on the
    /// writer's thread, so compute everything possible before. `bytes` is about how much it writes.
    pub(super) async fn submit<T, F>(&self, bytes: usize, work: F) -> Pending<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut Changes<'_>) -> Result<T, Failure> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let units = u32::try_from((bytes / UNIT + 1).min(QUEUE_UNITS)).unwrap_or(u32::MAX);
        // If the queue is closed, the reply is dropped, which the caller sees as an error.
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(units).await
            && let Some(queue) = &self.queue
        {
            let _ = queue.send(Box::new(TypedJob {
                bytes,
                work: Some(work),
                result: None,
                reply,
                _room: room,
            }));
        }
        answer
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the log panicked");
        }
    }
}

enum File {
    Open(Arc<Database>),
    /// To be opened again at this time.
    Failed {
        again: Instant,
    },
}

struct Writer {
    open: Opener,
    shared: Arc<Shared>,
    jobs: Receiver<Box<dyn Job>>,
    file: File,
    /// The pauses until a failed file is open again.
    pauses: Pauses,
    state: State,
    /// Dropped when the thread ends for any reason.
    _ended: oneshot::Sender<()>,
}

impl Writer {
    fn run(mut self) {
        loop {
            match &self.file {
                File::Open(database) => {
                    let database = Arc::clone(database);
                    let Some(group) = self.next_group() else {
                        return;
                    };
                    self.commit(&database, group);
                }
                File::Failed { again } => {
                    let again = *again;
                    match self
                        .jobs
                        .recv_timeout(again.saturating_duration_since(Instant::now()))
                    {
                        Ok(job) => job.answer(false),
                        Err(RecvTimeoutError::Disconnected) => return,
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                    if Instant::now() >= again {
                        self.reopen();
                    }
                }
            }
        }
    }

    /// Waits for a change and takes those that follow; `None` after the end of the queue.
    fn next_group(&mut self) -> Option<Vec<Box<dyn Job>>> {
        let first = self.jobs.recv().ok()?;
        let mut bytes = first.bytes();
        let mut group = vec![first];
        while group.len() < MOST_AT_ONCE && bytes < MOST_BYTES {
            let Ok(job) = self.jobs.try_recv() else {
                break;
            };
            bytes += job.bytes();
            group.push(job);
        }
        Some(group)
    }

    /// Commits a group in one transaction, then applies its effect, and then answers.
    fn commit(&mut self, database: &Database, mut group: Vec<Box<dyn Job>>) {
        let state = &self.state;
        let committed = catch_unwind(AssertUnwindSafe(|| transact(database, state, &mut group)))
            .unwrap_or_else(|_| Err(Failure::Corrupted("a change panicked".to_owned())));
        let is_durable = match committed {
            Ok(effect) => {
                if effect.apply(&mut self.state) {
                    self.shared.set_topics(Arc::clone(&self.state.topics));
                }
                true
            }
            Err(error) => {
                tracing::error!(%error, changes = group.len(), "the log could not be written; nothing of it was acknowledged");
                self.shared.set_database(None);
                self.file = File::Failed {
                    again: Instant::now() + self.pauses.next_pause(),
                };
                false
            }
        };
        for job in group {
            job.answer(is_durable);
        }
    }

    fn reopen(&mut self) {
        let opened = (self.open)()
            .map_err(|error| Unusable::Failure(error.into()))
            .and_then(|database| {
                // A file that can be read but not written is not usable yet. This write finds out before anybody relies
                // on it.
                let transaction = database.begin_write()?;
                transaction.commit()?;
                let state = load(&database)?;
                Ok((Arc::new(database), state))
            });
        match opened {
            Ok((database, state)) => {
                tracing::info!("the log can be written again");
                let before = std::mem::replace(&mut self.state, state);
                self.shared.set_topics(Arc::clone(&self.state.topics));
                self.shared.set_database(Some(Arc::clone(&database)));
                self.file = File::Open(database);
                self.pauses.reset();
                // Readers that wait on the old topics must look at the new ones.
                for partition in before.partitions.values() {
                    partition.wake();
                }
            }
            Err(error) => {
                let pause = self.pauses.next_pause();
                tracing::warn!(%error, ?pause, "the log cannot be opened again yet");
                self.file = File::Failed {
                    again: Instant::now() + pause,
                };
            }
        }
    }
}

fn transact(
    database: &Database,
    state: &State,
    group: &mut [Box<dyn Job>],
) -> Result<Effect, Failure> {
    let transaction = database.begin_write()?;
    let mut changes = Changes::new(&transaction, state);
    for job in group {
        job.run(&mut changes)?;
    }
    let effect = changes.finish()?;
    transaction.commit()?;
    Ok(effect)
}
