//! One child process: its start, its end, and its output.
#![expect(clippy::disallowed_methods, reason = "a command runs on real time")]

use std::{os::unix::process::ExitStatusExt, process::ExitStatus, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{ChildStdin, Command},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{child_log::ChildLog, service::Call};

/// How long to wait for the last output of a process that has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A running process. It is killed when the value is dropped.
#[derive(Debug)]
pub(super) struct Child {
    process: tokio::process::Child,
    id: u32,
    /// Never written to. The system closes this end when `up` dies, which ends the child.
    _alive: Option<ChildStdin>,
    readers: Vec<JoinHandle<()>>,
}

impl Child {
    /// Starts the process. Its output goes to the log.
    ///
    /// # Errors
    ///
    /// When the system cannot start it.
    pub(super) fn start(call: &Call, log: &ChildLog) -> std::io::Result<Self> {
        log.forget_tail();
        let mut process = Command::new(&call.executable)
            .args(&call.arguments)
            .envs(call.environment.iter().map(|(name, value)| (*name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in a terminal signals the whole process group, but `up` must stop its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let id = process
            .id()
            .ok_or_else(|| std::io::Error::other("the process ended before it had an id"))?;
        let alive = process.stdin.take();
        let readers = [
            process.stdout.take().map(|stream| log.follow(stream)),
            process.stderr.take().map(|stream| log.follow(stream)),
        ];
        Ok(Self {
            process,
            id,
            _alive: alive,
            readers: readers.into_iter().flatten().collect(),
        })
    }

    /// The process id.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Waits until the process ends and its last output is read. Cancellation safe; may be called again.
    pub(super) async fn ended(&mut self) -> String {
        let ended = self.process.wait().await;
        while let Some(reader) = self.readers.pop() {
            // Limited, because a grandchild could hold the stream open.
            let _ = timeout(LAST_WORDS, reader).await;
        }
        match ended {
            Ok(status) => describe(status),
            Err(error) => format!("its end is unknown ({error})"),
        }
    }

    /// Kills the process. The caller still has to wait for its end.
    pub(super) fn kill(&mut self) {
        // A failure means that the process has just ended.
        let _ = self.process.start_kill();
    }

    /// Sends SIGTERM. Kills the process if it does not end in time, or when `at_once` is cancelled.
    pub(super) async fn stop(&mut self, patience: Duration, at_once: &CancellationToken) {
        let id = i32::try_from(self.id).ok().and_then(Pid::from_raw);
        // The id cannot belong to another process yet, because only the code below waits for the child.
        if let (Ok(None), Some(id)) = (self.process.try_wait(), id) {
            // A failure means that the process has just ended.
            let _ = kill_process(id, Signal::TERM);
        }
        let has_ended = tokio::select! {
            biased;
            () = at_once.cancelled() => false,
            ended = timeout(patience, self.process.wait()) => ended.is_ok(),
        };
        if !has_ended {
            // A failure means that the process has just ended.
            let _ = self.process.kill().await;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
