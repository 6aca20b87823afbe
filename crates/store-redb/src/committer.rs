//! Group commit: one thread owns the write transactions, and all waiting jobs share the next one.
//!
//! A durable commit costs a flush of the disk, whatever it contains, so a commit of 64 commands costs little more than
//! a commit of one. A single command begins its commit at once: nothing waits in the hope of a larger batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use redb::{Durability, WriteTransaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{WorkError, away, file::File, last_failure::LastFailure};
use tandem_event_path::store::StoreError;
use tandem_runtime::{
    backoff::Backoff,
    clock::Clock,
    span::{Span, SpanKind},
    trace_context::TraceContext,
};

/// Most jobs in one transaction.
const BATCH: usize = 512;

/// How many jobs may wait or be in a commit. Further ones wait before they are queued.
const QUEUE: usize = 4096;

/// The longest time that a commit stays unflushed if nothing else is written.
const UNFLUSHED: Duration = Duration::from_secs(1);

/// The pauses between attempts to open the file again after an error.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Whether the effect of a job must survive a crash after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// It must survive.
    Yes,
    /// A crash soon afterwards may undo it. For jobs that are repeated then, without harm.
    No,
}

/// A job whose result type only its caller knows. It may run more than once, each time in a fresh transaction.
trait Job: Send {
    fn durable(&self) -> Durable;
    fn trace(&self) -> Option<TraceContext>;
    fn run(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct TypedJob<T, F> {
    durable: Durable,
    /// The trace of the waiting caller, if it is recorded.
    trace: Option<TraceContext>,
    work: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    _turn: OwnedSemaphorePermit,
}

impl<T, F> Job for TypedJob<T, F>
where
    T: Send,
    F: FnMut(&WriteTransaction) -> Result<T, WorkError> + Send,
{
    fn durable(&self) -> Durable {
        self.durable
    }

    fn trace(&self) -> Option<TraceContext> {
        self.trace
    }

    fn run(&mut self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let work = &mut self.work;
        let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
            .unwrap_or_else(|_| Err(StoreError::Corrupt("a write panicked".to_owned()).into()))?;
        self.result = Some(result);
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let answer = committed.and_then(|()| result.ok_or_else(stopped));
        // The caller may have gone away.
        let _ = reply.send(answer);
    }
}

/// The queue of the writer thread. When it is dropped, the thread finishes the waiting jobs and ends.
#[derive(Debug)]
pub(super) struct Committer {
    queue: Option<Sender<Box<dyn Job>>>,
    turns: Arc<Semaphore>,
    writer: Option<JoinHandle<()>>,
    last_failure: LastFailure,
}

impl Committer {
    pub(super) fn start(file: Arc<File>) -> std::io::Result<Self> {
        let (queue, jobs) = channel();
        let last_failure = LastFailure::default();
        let noted = last_failure.clone();
        let writer = std::thread::Builder::new()
            .name("embedded-store".to_owned())
            .spawn(move || {
                Writer {
                    file,
                    jobs,
                    unflushed: false,
                    is_broken: false,
                    last_failure: noted,
                }
                .run()
            })?;
        Ok(Self {
            queue: Some(queue),
            turns: Arc::new(Semaphore::new(QUEUE)),
            writer: Some(writer),
            last_failure,
        })
    }

    pub(super) fn last_failure(&self) -> Option<StoreError> {
        self.last_failure.get()
    }

    pub(super) async fn commit<T, F>(&self, durable: Durable, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&WriteTransaction) -> Result<T, WorkError> + Send + 'static,
    {
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| stopped())?;
        let (reply, answer) = oneshot::channel();
        let recorded = Span::within_current(SpanKind::Client, "commit")
            .with("db.system.name", "redb")
            .with("db.operation.name", "commit");
        let job = TypedJob {
            durable,
            trace: recorded.context(),
            work,
            result: None,
            reply,
            _turn: turn,
        };
        self.queue
            .as_ref()
            .and_then(|queue| queue.send(Box::new(job)).ok())
            .ok_or_else(stopped)?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // The thread ends with the queue. If a job held the last handle, this is the writer thread itself, which
            // cannot join itself.
            if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
                tracing::error!("the writer of the embedded store panicked");
            }
        }
    }
}

struct Writer {
    file: Arc<File>,
    jobs: Receiver<Box<dyn Job>>,
    /// Whether the newest commit is only in memory.
    unflushed: bool,
    /// Whether the file failed, for example because the disk is full. Then it must be opened again.
    is_broken: bool,
    last_failure: LastFailure,
}

impl Writer {
    fn run(mut self) {
        while let Some(batch) = self.next_batch() {
            self.commit(batch);
            if self.is_broken && !self.recover() {
                return;
            }
        }
        self.flush();
    }

    /// Opens the file again, with as many attempts as it takes. Writes meanwhile fail as unavailable. Returns false if
    /// there will be no more jobs.
    #[expect(clippy::disallowed_methods, reason = "a thread that waits for a file")]
    fn recover(&mut self) -> bool {
        let mut pauses = BACKOFF.pauses(&Clock::default());
        loop {
            let reason = match self.file.reopen() {
                Ok(()) => {
                    (self.is_broken, self.unflushed) = (false, false);
                    tracing::info!("the embedded store is open again");
                    return true;
                }
                Err(error) => error.to_string(),
            };
            let pause = pauses.next_pause();
            tracing::warn!(
                reason,
                ?pause,
                "the embedded store cannot be opened again; trying again"
            );
            let until = Instant::now() + pause;
            loop {
                let left = until.saturating_duration_since(Instant::now());
                match self.jobs.recv_timeout(left) {
                    Ok(job) => {
                        let first = self.last_failure.get();
                        let away = || StoreError::Unavailable(reason.clone());
                        job.answer(Err(first.unwrap_or_else(away)));
                    }
                    Err(RecvTimeoutError::Timeout) => break,
                    Err(RecvTimeoutError::Disconnected) => return false,
                }
            }
        }
    }

    /// Records a failure of the file and returns the error. Until the file is open again, the first failure is
    /// reported.
    fn fails(&mut self, failure: StoreError) -> StoreError {
        let first = self.last_failure.get().filter(|_| self.is_broken);
        let failure = first.unwrap_or(failure);
        self.last_failure.set(Some(failure.clone()));
        self.is_broken = true;
        failure
    }

    /// Waits for a job and takes those that follow; `None` after the end of the queue.
    fn next_batch(&mut self) -> Option<Vec<Box<dyn Job>>> {
        let first = loop {
            if !self.unflushed {
                break self.jobs.recv().ok()?;
            }
            match self.jobs.recv_timeout(UNFLUSHED) {
                Ok(job) => break job,
                Err(RecvTimeoutError::Timeout) => {
                    self.flush();
                    if self.is_broken && !self.recover() {
                        return None;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        };
        let mut batch = vec![first];
        batch.extend(self.jobs.try_iter().take(BATCH - 1));
        Some(batch)
    }

    /// Commits a batch in one transaction and answers each job. If a job fails, its caller gets the error and its
    /// writes are undone: the transaction is aborted, and the other jobs run again without it.
    fn commit(&mut self, mut batch: Vec<Box<dyn Job>>) {
        let traces = batch.iter().filter_map(|job| job.trace());
        let _recorded = Span::for_all(traces, SpanKind::Internal, "shared commit")
            .with("db.system.name", "redb");
        while !batch.is_empty() {
            match self.attempt(&mut batch) {
                Ok(()) => {
                    // A commit that is only in memory says nothing about the file.
                    if !self.unflushed {
                        self.last_failure.set(None);
                    }
                    for job in batch.drain(..) {
                        job.answer(Ok(()));
                    }
                }
                Err(Failure::Job(index, error)) => {
                    let error = match error {
                        // The file failed during this job. It is opened again even if no other job comes.
                        failure @ StoreError::Unavailable(_) => self.fails(failure),
                        error @ StoreError::Corrupt(_) => error,
                    };
                    batch.remove(index).answer(Err(error));
                }
                Err(Failure::All(error)) => {
                    tracing::error!(%error, jobs = batch.len(), "the embedded store could not commit");
                    let reason = match self.fails(error) {
                        StoreError::Unavailable(reason) | StoreError::Corrupt(reason) => reason,
                    };
                    for job in batch.drain(..) {
                        job.answer(Err(StoreError::Unavailable(reason.clone())));
                    }
                }
            }
        }
    }

    fn attempt(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), Failure> {
        let database = self.file.database().map_err(Failure::All)?;
        let mut transaction = database.begin_write().map_err(Failure::all)?;
        let durable = batch.iter().any(|job| job.durable() == Durable::Yes);
        if !durable {
            transaction
                .set_durability(Durability::None)
                .map_err(Failure::all)?;
        }
        for (index, job) in batch.iter_mut().enumerate() {
            job.run(&transaction)
                .map_err(|error| Failure::Job(index, error))?;
        }
        transaction.commit().map_err(Failure::all)?;
        self.unflushed = !durable;
        Ok(())
    }

    /// Makes earlier non-durable commits durable, with an empty durable commit.
    fn flush(&mut self) {
        if self.unflushed {
            let flushed = self.file.database().and_then(|database| {
                let empty = database.begin_write().map_err(away)?;
                empty.commit().map_err(away)
            });
            if let Err(error) = flushed {
                tracing::warn!(%error, "the embedded store could not flush; what was published may be published again");
                self.fails(error);
            }
            self.unflushed = false;
        }
    }
}

enum Failure {
    Job(usize, StoreError),
    All(StoreError),
}

impl Failure {
    fn all(error: impl Into<redb::Error>) -> Self {
        Self::All(away(error))
    }
}

fn stopped() -> StoreError {
    StoreError::Unavailable("the embedded store has been closed".to_owned())
}
