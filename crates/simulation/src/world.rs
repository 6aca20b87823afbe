//! The world of a simulation: virtual time, the agenda of future effects, and the trace of past ones.
//!
//! Everything that a port does outside of its process is an effect that is due at an instant. Effects of the same
//! instant happen in the order of random numbers that their tasks drew, not in the order in which they were requested.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    hash::{DefaultHasher, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tandem_runtime::{
    shutdown::Shutdown,
    task::{Polls, TaskHost},
};
use tokio::{
    sync::{Notify, oneshot},
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use crate::chance::{Chance, TaskChance, draw};

/// The time at which every run begins, in milliseconds since 1970.
pub const BEGINNING: u64 = 1_800_000_000_000;
/// The number of newest lines of the trace that are kept for display.
const SHOWN: usize = 400;

type Effect = Box<dyn FnOnce() + Send>;

/// A world. Clones share it.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    /// All tasks that belong to no process.
    running: Arc<Tasks>,
    begun: Option<Instant>,
    agenda: Mutex<BTreeMap<(u64, u64), Effect>>,
    earlier: Notify,
    numbers: AtomicU64,
    trace: Mutex<Trace>,
    tasks: Shutdown,
}

#[derive(Default)]
struct Trace {
    hasher: DefaultHasher,
    lines: u64,
    newest: VecDeque<String>,
    all: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("World")
    }
}

#[derive(Debug, Default)]
struct Tasks(Mutex<Vec<AbortHandle>>);

impl TaskHost for Tasks {
    fn begin(&self) -> Box<dyn Polls> {
        Box::new(TaskChance::fork())
    }

    fn begun(&self, task: AbortHandle) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.push(task);
    }
}

impl World {
    /// Creates a world that begins now. It needs a runtime whose time only advances when no task can run. With `all`,
    /// the whole trace is written to standard error.
    #[must_use]
    pub fn begin(all: bool) -> Self {
        let world = Self::new(Some(now()));
        world.trace().all = all;
        let driven = world.clone();
        world.spawn(async move { driven.drive().await });
        world
    }

    /// Creates a world in which every effect happens at once, within any runtime. For tests of the ports without
    /// faults.
    #[must_use]
    pub fn immediate() -> Self {
        Self::new(None)
    }

    fn new(begun: Option<Instant>) -> Self {
        let running = Arc::<Tasks>::default();
        Self(Arc::new(Inner {
            tasks: Shutdown::new().hosted_by(Arc::clone(&running) as _),
            running,
            begun,
            agenda: Mutex::default(),
            earlier: Notify::new(),
            numbers: AtomicU64::new(0),
            trace: Mutex::default(),
        }))
    }

    /// Nanoseconds since the world began.
    #[must_use]
    pub fn elapsed(&self) -> u64 {
        let elapsed = self.0.begun.map_or(Duration::ZERO, |begun| now() - begun);
        u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A number that has not been returned before.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs a task that belongs to no process.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.0.tasks.spawn(task));
    }

    /// Runs a task that belongs to no process. It continues even if nobody waits for its result.
    pub fn task<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.tasks.spawn(task)
    }

    /// Schedules an effect after a delay.
    pub fn later(&self, delay: Duration, effect: impl FnOnce() + Send + 'static) {
        if self.0.begun.is_none() {
            return effect();
        }
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        // Chance decides about the time within the millisecond. Otherwise, delays of whole milliseconds would often be
        // due at the same instant.
        let due = self.elapsed() + delay.max(1_000_000) + draw(|chance| chance.below(1_000_000));
        self.at(due, effect);
    }

    /// Schedules an effect at an instant, in nanoseconds since the world began.
    pub fn at(&self, due: u64, effect: impl FnOnce() + Send + 'static) {
        let tie = draw(Chance::number);
        let mut agenda = self.agenda();
        let is_first = agenda
            .first_key_value()
            .is_none_or(|((first, _), _)| due < *first);
        agenda.insert((due, tie), Box::new(effect));
        drop(agenda);
        if is_first {
            self.0.earlier.notify_one();
        }
    }

    /// Runs an effect after a delay and waits for it. It happens even if nobody waits any more.
    pub async fn effect<T: Send + 'static>(
        &self,
        delay: Duration,
        effect: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        if self.0.begun.is_none() {
            return effect();
        }
        let (done, answer) = oneshot::channel();
        self.later(delay, move || {
            let _ = done.send(effect());
        });
        match answer.await {
            Ok(answer) => answer,
            // The world has ended.
            Err(_) => std::future::pending().await,
        }
    }

    async fn drive(self) {
        loop {
            let due = self
                .agenda()
                .first_key_value()
                .map(|((due, _), _)| self.moment(*due));
            tokio::select! {
                biased;
                () = until(due) => {}
                () = self.0.earlier.notified() => continue,
            }
            loop {
                let elapsed = self.elapsed();
                let mut agenda = self.agenda();
                let is_due = agenda
                    .first_key_value()
                    .is_some_and(|((due, _), _)| *due <= elapsed);
                let Some((_, effect)) = is_due.then(|| agenda.pop_first()).flatten() else {
                    break;
                };
                drop(agenda);
                effect();
            }
        }
    }

    fn moment(&self, due: u64) -> Instant {
        self.0.begun.unwrap_or_else(now) + Duration::from_nanos(due)
    }

    /// Waits for this time.
    pub async fn sleep(&self, duration: Duration) {
        until(Some(now() + duration)).await;
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if self.0.begun.is_none() {
            return;
        }
        let line = format!("{:>10.3} {}", seconds(self.elapsed()), line());
        let mut trace = self.trace();
        trace.hasher.write(line.as_bytes());
        trace.lines += 1;
        if trace.all {
            eprintln!("{line}");
        }
        if trace.newest.len() >= SHOWN {
            trace.newest.pop_front();
        }
        trace.newest.push_back(line);
    }

    /// A digest of the trace so far.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.trace().hasher.finish()
    }

    /// The newest lines of the trace.
    #[must_use]
    pub fn newest(&self) -> Vec<String> {
        self.trace().newest.iter().cloned().collect()
    }

    fn agenda(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Effect>> {
        self.0.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trace(&self) -> MutexGuard<'_, Trace> {
        self.0.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the tasks of the world, and drops the scheduled effects. Effects hold references to what holds the world,
    /// so this breaks the cycle.
    pub fn end(&self) {
        let tasks = self.0.running.0.lock();
        for task in tasks.unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
        let dropped = std::mem::take(&mut *self.agenda());
        drop(dropped);
    }
}

#[allow(clippy::cast_precision_loss)] // to be shown
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The time of the runtime. It only advances when no task can run.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods)]
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
