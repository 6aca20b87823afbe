//! Starts the processes, restarts those that die, and stops all of them in order.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use tandem_runtime::{backoff::Backoff, clock::Clock, shutdown::Shutdown};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    child::Child,
    child_log::ChildLog,
    readiness::Prober,
    record::Record,
    service::{Plan, Service},
    terminal::Terminal,
};

/// How long a process may take to become ready.
const START_LIMIT: Duration = Duration::from_secs(90);
/// How often a starting process is probed.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);
/// How often a running process is probed.
const LIFE_INTERVAL: Duration = Duration::from_secs(2);
/// A process counts as hanging only after this many unanswered probes in a row. A single one may be lost while the
/// machine sleeps.
const LEAST_UNANSWERED: u32 = 3;
/// How many of the requests that a process was serving when it died are shown.
const MOST_LEFT: usize = 10;
/// The pauses before a process is restarted.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
/// After a process has lived this long, the pauses begin again with the first.
const STABLE: Duration = Duration::from_secs(10);

/// All processes of one `up`.
#[derive(Debug)]
pub(super) struct Supervision {
    shared: Arc<Shared>,
    /// In the order of their start.
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Shared {
    plan: Plan,
    record: Record,
    terminal: Terminal,
    prober: Prober,
    shutdown: Shutdown,
    /// Cancelled when the user does not want to wait for an orderly shutdown.
    at_once: CancellationToken,
}

/// A service whose process is restarted when it dies.
#[derive(Debug)]
struct Watched {
    service: Service,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Supervision {
    pub(super) fn new(
        plan: Plan,
        prober: Prober,
        terminal: Terminal,
        shutdown: Shutdown,
        at_once: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                record: Record::of(&plan),
                plan,
                terminal,
                prober,
                shutdown,
                at_once,
            }),
            watched: Vec::new(),
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.shared.plan
    }

    /// Starts all processes and waits until each is ready. Returns false when it was told to stop before that.
    ///
    /// # Errors
    ///
    /// When a process ends or is not ready in time. The message is the process's own sentence, if it printed one.
    pub(super) async fn start(&mut self) -> anyhow::Result<bool> {
        let shutdown = self.shared.shutdown.clone();
        tokio::select! {
            biased;
            () = shutdown.requested() => Ok(false),
            started = self.start_all() => started.map(|()| true),
        }
    }

    async fn start_all(&mut self) -> anyhow::Result<()> {
        self.shared
            .terminal
            .progress("waiting until everything answers");
        let has_broker = self.plan().has_broker();
        let broker = if has_broker {
            Some(self.begin(Service::Broker)?)
        } else {
            None
        };
        // The gateway takes longest to start and depends on no other process for it.
        let router = self.begin(Service::Router)?;
        if let Some(broker) = broker {
            broker.ready().await?;
        }
        let accounts = self.begin(Service::Accounts)?;
        let orders = self.begin(Service::Orders)?;
        tokio::try_join!(accounts.ready(), orders.ready(), router.ready())?;
        Ok(())
    }

    /// Starts one process and supervises it from now on.
    fn begin(&mut self, service: Service) -> anyhow::Result<Beginning> {
        let shared = self.shared.clone();
        let log = ChildLog::open(service, &shared.plan.logs(), shared.terminal.clone())
            .with_context(|| format!("the log of {} cannot be written", service.name()))?;
        let child = shared.start(service, &log)?;
        let stop = CancellationToken::new();
        let (first, outcome) = tokio::sync::oneshot::channel();
        let watch = Watch {
            service,
            shared,
            log,
            stop: stop.clone(),
        };
        let task = tokio::spawn(async move { watch.run(child, first).await });
        self.watched.push(Watched {
            service,
            stop,
            task,
        });
        Ok(Beginning { service, outcome })
    }

    /// Waits for SIGINT or SIGTERM.
    pub(super) async fn until_stopped(&self) {
        self.shared.shutdown.requested().await;
    }

    /// Stops the processes one after the other: first the gateway, then the services, then the broker.
    pub(super) async fn stop(&mut self) {
        self.shared
            .terminal
            .say("stopping; Ctrl-C once more ends it at once");
        for service in [
            Service::Router,
            Service::Orders,
            Service::Accounts,
            Service::Broker,
        ] {
            for watched in self
                .watched
                .extract_if(.., |watched| watched.service == service)
            {
                watched.stop.cancel();
                // The task ends within the service's patience. If it fails, its child is killed with it.
                let _ = watched.task.await;
            }
        }
        self.shared.terminal.say("stopped");
    }

    /// Removes the file that tells the operator's commands that this system runs.
    pub(super) fn close_record(&self) {
        self.shared.record.close();
    }
}

/// The first start of a process.
struct Beginning {
    service: Service,
    outcome: tokio::sync::oneshot::Receiver<Result<(), String>>,
}

impl Beginning {
    async fn ready(self) -> anyhow::Result<()> {
        match self.outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => Err(anyhow::anyhow!(
                "{} did not start: {reason}",
                self.service.name()
            )),
            Err(_) => Err(anyhow::anyhow!(
                "{} is not watched any more",
                self.service.name()
            )),
        }
    }
}

impl Shared {
    fn start(&self, service: Service, log: &ChildLog) -> anyhow::Result<Child> {
        let child = Child::start(&self.plan.call(service), log)
            .with_context(|| format!("{} cannot be started", service.name()))?;
        self.terminal
            .say(&format!("started {} (pid {})", service.name(), child.id()));
        self.note(service, Some(child.id()));
        Ok(child)
    }

    /// Updates the record. Without it the system still works, but operators have to give addresses.
    fn note(&self, service: Service, id: Option<u32>) {
        if let Err(error) = self.record.note(service, id) {
            self.terminal.say(&format!(
                "what runs cannot be written into {} ({error}): other commands will not find this system by themselves",
                self.plan.directory.display()
            ));
        }
    }
}

/// Supervises one service.
struct Watch {
    service: Service,
    shared: Arc<Shared>,
    log: ChildLog,
    stop: CancellationToken,
}

impl Watch {
    async fn run(self, mut child: Child, first: tokio::sync::oneshot::Sender<Result<(), String>>) {
        let name = self.service.name();
        let outcome = tokio::select! {
            biased;
            () = self.stop.cancelled() => return self.end(child).await,
            ended = child.ended() => Err(format!("it {ended}: {}", self.log.reason())),
            ready = self.clock().timeout(START_LIMIT, self.ready()) => match ready {
                Ok(()) => Ok(()),
                Err(_) => Err(self.why_not_ready().await),
            }
        };
        let started = outcome.is_ok();
        // Nobody waits for the outcome any more if the start was cancelled.
        let _ = first.send(outcome);
        if !started {
            self.stop.cancelled().await;
            return self.end(child).await;
        }
        let mut pauses = BACKOFF.pauses(self.clock());
        let mut answers = true;
        loop {
            let begin = self.clock().instant();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return self.end(child).await,
                ended = self.watch_over(&mut child, answers) => {
                    self.say(&format!("{name} (pid {}) {ended}", child.id()));
                    self.say_what_it_left();
                    self.shared.note(self.service, None);
                }
            }
            if !self.shared.plan.restarts() {
                self.say(&format!(
                    "{name} stays down (--no-restart); the rest carries on"
                ));
                return self.stop.cancelled().await;
            }
            if self.clock().since(begin) >= STABLE {
                pauses.reset();
            }
            answers = false;
            child = loop {
                let pause = pauses.next_pause();
                self.say(&format!(
                    "{name} is started again in {:.2} s",
                    pause.as_secs_f64()
                ));
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = self.clock().sleep(pause) => {}
                }
                match self.shared.start(self.service, &self.log) {
                    Ok(child) => break child,
                    Err(problem) => self.say(&format!("{problem:#}")),
                }
            };
        }
    }

    /// Shows which requests a dead process was serving. One of them may be the cause.
    fn say_what_it_left(&self) {
        let left = self.shared.plan.left_by(self.service);
        for request in left.iter().take(MOST_LEFT) {
            self.say(&format!("{} was serving: {request}", self.service.name()));
        }
        if left.len() > MOST_LEFT {
            self.say(&format!("and {} more", left.len() - MOST_LEFT));
        }
    }

    /// Waits until the process ends. Says when a restarted process answers again.
    async fn watch_over(&self, child: &mut Child, answers: bool) -> String {
        if !answers {
            tokio::select! {
                ended = child.ended() => return ended,
                // It may have to read a large file before it listens, so it has as long as at the first start.
                silent = self.hangs(START_LIMIT) => return self.end_hanging(child, silent).await,
                () = self.ready() => self.say(&format!("{} answers again", self.service.name())),
            }
        }
        tokio::select! {
            ended = child.ended() => ended,
            silent = self.hangs(Duration::ZERO) => self.end_hanging(child, silent).await,
        }
    }

    /// Kills a process that has been silent for this long. Says so, with the last lines of the process.
    async fn end_hanging(&self, child: &mut Child, silent: Duration) -> String {
        self.say(&format!(
            "{} (pid {}) answered nothing for {} s: it hangs and is ended; its last words: {}",
            self.service.name(),
            child.id(),
            silent.as_secs(),
            self.log.reason()
        ));
        child.kill();
        child.ended().await
    }

    /// Returns when the process has not shown for too long that it lives, with how long it has been silent. The limit
    /// is the one in the settings, but never shorter than `at_least`.
    async fn hangs(&self, at_least: Duration) -> Duration {
        let limit = self.shared.plan.hang_limit();
        let Some(limit) = limit.filter(|_| self.shared.plan.restarts()) else {
            // Nobody would restart it.
            return std::future::pending().await;
        };
        let limit = limit.max(at_least);
        let life = self.shared.plan.life(self.service);
        let mut heard = self.clock().instant();
        let mut unanswered = 0;
        loop {
            self.clock().sleep(LIFE_INTERVAL).await;
            if self.shared.prober.is_alive(&life).await {
                heard = self.clock().instant();
                unanswered = 0;
                continue;
            }
            unanswered += 1;
            let silent = self.clock().since(heard);
            if unanswered >= LEAST_UNANSWERED && silent >= limit {
                return silent;
            }
        }
    }

    /// Why the process is not ready: the reason in its health report, or otherwise its last lines.
    async fn why_not_ready(&self) -> String {
        let probe = self.shared.plan.probe(self.service);
        let why = self.shared.prober.why_not_ready(&probe).await;
        format!(
            "not ready within {} s; {}",
            START_LIMIT.as_secs(),
            why.unwrap_or_else(|| self.log.reason())
        )
    }

    async fn ready(&self) {
        let probe = self.shared.plan.probe(self.service);
        while !self.shared.prober.is_ready(&probe).await {
            self.clock().sleep(PROBE_INTERVAL).await;
        }
    }

    fn clock(&self) -> &Clock {
        self.shared.shutdown.clock()
    }

    async fn end(&self, mut child: Child) {
        child
            .stop(self.service.patience(), &self.shared.at_once)
            .await;
    }

    fn say(&self, line: &str) {
        self.shared.terminal.say(line);
    }
}
