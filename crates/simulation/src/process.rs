//! A simulated process: a clock that may jump, tasks, and a kill that gives no chance to clean up.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tandem_runtime::{
    clock::{Clock, Instant, Sleep, TimeSource},
    shutdown::Shutdown,
    task::{Polls, TaskHost},
};
use tokio::task::AbortHandle;

use crate::{
    chance::{Chance, TaskChance, draw},
    world::{BEGINNING, World, now},
};

/// A process. Clones share it.
#[derive(Clone)]
pub struct Process {
    /// The name, such as `orders-2`.
    pub name: Arc<str>,
    /// The shutdown handle, which runs its tasks.
    pub shutdown: Shutdown,
    host: Arc<Host>,
}

impl fmt::Debug for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name)
    }
}

#[derive(Debug, Default)]
struct Host {
    tasks: Mutex<Vec<AbortHandle>>,
    is_dead: AtomicBool,
}

impl Host {
    fn tasks(&self) -> MutexGuard<'_, Vec<AbortHandle>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl TaskHost for Host {
    fn begin(&self) -> Box<dyn Polls> {
        Box::new(TaskChance::fork())
    }

    fn begun(&self, task: AbortHandle) {
        if self.is_dead.load(Ordering::Relaxed) {
            task.abort();
        }
        let mut tasks = self.tasks();
        if tasks.len() >= 256 {
            tasks.retain(|task| !task.is_finished());
        }
        tasks.push(task);
    }
}

/// The error of a machine's clock against the clock of the world.
#[derive(Clone, Debug)]
pub struct Wrong(Arc<AtomicI64>);

impl Wrong {
    /// A clock that is wrong by this many milliseconds.
    #[must_use]
    pub fn by(milliseconds: i64) -> Self {
        Self(Arc::new(AtomicI64::new(milliseconds)))
    }

    /// Makes the clock jump, so that it is wrong by this many milliseconds.
    pub fn set(&self, milliseconds: i64) {
        self.0.store(milliseconds, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct MachineClock {
    world: World,
    wrong: Wrong,
}

impl TimeSource for MachineClock {
    fn now(&self) -> SystemTime {
        let milliseconds = BEGINNING + self.world.elapsed() / 1_000_000;
        let shown = milliseconds.saturating_add_signed(self.wrong.0.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + Duration::from_millis(shown)
    }

    fn instant(&self) -> Instant {
        now()
    }

    #[allow(clippy::disallowed_methods)] // the runtime's time is the time of the world
    fn sleep_until(&self, moment: Instant) -> Sleep {
        Box::pin(tokio::time::sleep_until(moment))
    }

    fn random(&self) -> u128 {
        let (high, low) = draw(|chance: &mut Chance| (chance.number(), chance.number()));
        u128::from(high) << 64 | u128::from(low)
    }
}

impl Process {
    /// Creates a process on a machine with this clock error.
    #[must_use]
    pub fn new(name: &str, world: &World, wrong: &Wrong) -> Self {
        let host = Arc::new(Host::default());
        let clock = Clock::new(MachineClock {
            world: world.clone(),
            wrong: wrong.clone(),
        });
        Self {
            name: name.into(),
            shutdown: Shutdown::with_clock(clock).hosted_by(Arc::clone(&host) as _),
            host,
        }
    }

    /// Ends the process like `kill -9`: none of its tasks continues.
    pub fn kill(&self) {
        self.host.is_dead.store(true, Ordering::Relaxed);
        for task in self.host.tasks().drain(..) {
            task.abort();
        }
    }

    /// Whether the process was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.host.is_dead.load(Ordering::Relaxed)
    }
}
