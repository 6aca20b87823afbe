//! Graceful shutdown: one signal that every task of a process sees, and one place that waits for the tasks to end.
//!
//! A service ends on SIGINT and on SIGTERM. A service that `tandem up` started also ends with its parent: however the
//! parent dies, the pipe on standard input closes. If a service does not end in time, it exits hard, so that no child
//! outlives its parent.

use std::future::Future;
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backoff::Backoff;
use crate::clock::Clock;
use crate::task::{Hosted, TaskHost};

/// How long a process may run after the request for shutdown before it exits hard.
pub const HARD_EXIT_AFTER: Duration = Duration::from_secs(4);

/// The exit code of a process that exits hard.
pub const HARD_EXIT_CODE: i32 = 70;

/// When a process ends, apart from signals.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Shutdown")]
pub struct ShutdownSettings {
    /// End when standard input is closed, so that this process never outlives the one that started it.
    #[arg(long, env = "TANDEM_EXIT_WITH_PARENT")]
    pub exit_with_parent: bool,
}

/// A background task did not end in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{remaining} background task(s) still ran {} ms after shutdown was requested", limit.as_millis())]
pub struct DrainTimeout {
    /// How many tasks were still running.
    pub remaining: usize,
    /// How long they had time to end.
    pub limit: Duration,
}

/// The life of a process: its shutdown signal, its background tasks and its clock. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
    clock: Clock,
    hard_exit: Option<Arc<AtomicBool>>,
    failure: Arc<OnceLock<String>>,
    host: Option<Arc<dyn TaskHost>>,
}

impl Shutdown {
    /// A shutdown that only [`Shutdown::request`] triggers: for tests and for parts of a process.
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown with its own clock, for tests that control time.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            clock,
            ..Self::default()
        }
    }

    /// The same shutdown, with a host that supervises its tasks.
    #[must_use]
    pub fn hosted_by(self, host: Arc<dyn TaskHost>) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }

    /// The process's clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Listens for SIGINT and SIGTERM and, if configured, for the end of standard input. After the request the process
    /// has [`HARD_EXIT_AFTER`] to end. A second signal ends it at once.
    ///
    /// Call it once per process, within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the operating system refuses a signal handler or a thread.
    pub fn install(settings: &ShutdownSettings) -> std::io::Result<Self> {
        Self::listen(settings, None)
    }

    /// Like [`Shutdown::install`], for a process that has children to end. The second signal cancels `at_once`, so that
    /// the process ends its children without waiting and then itself. A third signal ends the process at once.
    ///
    /// # Errors
    ///
    /// As [`Shutdown::install`].
    pub fn install_above_others(
        settings: &ShutdownSettings,
        at_once: &CancellationToken,
    ) -> std::io::Result<Self> {
        Self::listen(settings, Some(at_once.clone()))
    }

    fn listen(
        settings: &ShutdownSettings,
        at_once: Option<CancellationToken>,
    ) -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        let shutdown = Self {
            hard_exit: Some(Arc::new(AtomicBool::new(false))),
            ..Self::default()
        };
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let on_signal = shutdown.clone();
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                };
                if on_signal.is_requested() {
                    let unheard = at_once.as_ref().filter(|at_once| !at_once.is_cancelled());
                    if let Some(at_once) = unheard {
                        at_once.cancel();
                        continue;
                    }
                    tracing::warn!(signal = name, "second signal: ending at once");
                    std::process::exit(HARD_EXIT_CODE);
                }
                on_signal.request(name);
            }
        });
        if settings.exit_with_parent {
            let on_end = shutdown.clone();
            std::thread::Builder::new()
                .name("parent-watch".into())
                .spawn(move || {
                    wait_for_end_of(std::io::stdin().lock());
                    on_end.request("the parent process is gone");
                })?;
        }
        Ok(shutdown)
    }

    /// Requests shutdown and logs the reason. Has no effect after the first request.
    pub fn request(&self, reason: &str) {
        if self.token.is_cancelled() {
            return;
        }
        // Before the log line: if the parent is gone, so is the reader of the log.
        self.token.cancel();
        self.arm_hard_exit();
        tracing::info!(reason, "shutting down");
    }

    /// Requests shutdown because the process cannot continue. It then ends as failed, with this message. The first
    /// message counts.
    pub fn fail(&self, sentence: &str) {
        let _ = self.failure.set(sentence.to_owned());
        self.request("the process cannot go on");
    }

    /// Why the process cannot continue, if it cannot.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// The token that is cancelled when shutdown is requested, for code that only knows tokens.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Whether shutdown was requested.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until shutdown is requested.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Sleeps, at most until shutdown is requested. Returns whether the whole time has passed.
    pub async fn sleep(&self, duration: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.token.cancelled() => false,
            () = self.clock.sleep(duration) => true,
        }
    }

    /// Retries with pauses until an attempt succeeds. Returns `None` if an attempt fails and shutdown is requested. An
    /// attempt is never interrupted, and one attempt is made even after that request. `failed` is called with each
    /// failure and the pause that follows.
    pub async fn retry<T, E, F>(
        &self,
        backoff: Backoff,
        mut attempt: impl FnMut() -> F,
        mut failed: impl FnMut(&E, Duration),
    ) -> Option<T>
    where
        F: Future<Output = Result<T, E>>,
    {
        let mut pauses = backoff.pauses(&self.clock);
        loop {
            match attempt().await {
                Ok(done) => return Some(done),
                Err(error) => {
                    let pause = pauses.next_pause();
                    failed(&error, pause);
                    if !self.sleep(pause).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Runs a background task that [`Shutdown::drain`] waits for. The task must end when shutdown is requested.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.host {
            None => self.tasks.spawn(task),
            Some(host) => {
                let spawned = self.tasks.spawn(Hosted::new(task, host.as_ref()));
                host.begun(spawned.abort_handle());
                spawned
            }
        }
    }

    /// Requests shutdown, then waits for the background tasks for at most `limit`.
    ///
    /// # Errors
    ///
    /// [`DrainTimeout`] if tasks are still running after `limit`.
    pub async fn drain(&self, limit: Duration) -> Result<(), DrainTimeout> {
        self.request("the service has ended");
        self.tasks.close();
        match self.clock.timeout(limit, self.tasks.wait()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(DrainTimeout {
                remaining: self.tasks.len(),
                limit,
            }),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "it ends a blocked process, too")]
    fn arm_hard_exit(&self) {
        let Some(armed) = &self.hard_exit else { return };
        if armed.swap(true, Ordering::SeqCst) {
            return;
        }
        let spawned = std::thread::Builder::new()
            .name("hard-exit".into())
            .spawn(|| {
                std::thread::sleep(HARD_EXIT_AFTER);
                tracing::error!(
                    after_seconds = HARD_EXIT_AFTER.as_secs(),
                    "still running after shutdown was requested: ending hard"
                );
                std::process::exit(HARD_EXIT_CODE);
            });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for the hard exit; shutdown has no time limit");
        }
    }
}

/// Reads and discards everything until the other end is closed (or cannot be read).
fn wait_for_end_of(mut input: impl Read) {
    let mut buffer = [0u8; 256];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test]
    async fn a_requested_shutdown_reaches_every_clone() {
        let shutdown = Shutdown::new();
        let other = shutdown.clone();
        let waiting = tokio::spawn(async move { other.requested().await });
        shutdown.request("test");
        tokio::time::timeout(Duration::from_secs(5), waiting)
            .await
            .unwrap()
            .unwrap();
        assert!(shutdown.is_requested());
    }

    #[tokio::test]
    async fn drain_waits_for_tasks_that_end() {
        let shutdown = Shutdown::new();
        let token = shutdown.token();
        shutdown.spawn(async move { token.cancelled().await });
        assert_eq!(shutdown.drain(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn drain_gives_up_on_tasks_that_do_not_end() {
        let shutdown = Shutdown::new();
        shutdown.spawn(std::future::pending::<()>());
        let limit = Duration::from_secs(3);
        let refused = shutdown.drain(limit).await;
        assert_eq!(
            refused,
            Err(DrainTimeout {
                remaining: 1,
                limit
            })
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_sleep_ends_early_when_shutdown_is_requested() {
        let shutdown = Shutdown::new();
        assert!(shutdown.sleep(Duration::from_secs(1)).await);
        shutdown.request("test");
        assert!(!shutdown.sleep(Duration::from_secs(3600)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn tries_go_on_until_one_succeeds_or_shutdown_is_requested() {
        let shutdown = Shutdown::new();
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let (mut tries, mut failures) = (0, 0);
        let done = shutdown
            .retry(
                backoff,
                || {
                    tries += 1;
                    let outcome = if tries < 4 { Err("away") } else { Ok(tries) };
                    async move { outcome }
                },
                |_, _| failures += 1,
            )
            .await;
        assert_eq!((done, failures), (Some(4), 3));
        shutdown.request("test");
        let never = shutdown.retry(backoff, || async { Err::<(), _>("away") }, |_, _| {});
        assert_eq!(never.await, None);
    }

    #[test]
    fn the_end_of_input_is_seen_after_all_that_came_before() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let watching = std::thread::spawn(move || wait_for_end_of(reader));
        std::io::Write::write_all(&mut writer, b"noise").unwrap();
        assert!(!watching.is_finished());
        drop(writer);
        watching.join().unwrap();
    }
}
