//! One server process: signals, its log, and a watchdog that ends it when the test process dies.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Error;

/// How long a server may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running server process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    watchdog: Watchdog,
    log: PathBuf,
}

impl Server {
    /// Starts the command and appends its output to `log`. When the test process dies, the server is killed and `data`
    /// is removed.
    ///
    /// # Errors
    /// When the program or its watchdog cannot be started.
    pub(crate) fn start(command: &mut Command, log: &Path, data: &Path) -> Result<Self, Error> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A process group of its own: Ctrl-C reaches only the test, and the end of the test ends the server.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: PathBuf::from(command.get_program()),
                source,
            })?;
        match Watchdog::over(child.id(), data) {
            Ok(watchdog) => Ok(Self {
                child,
                watchdog,
                log: log.to_owned(),
            }),
            Err(error) => {
                child.kill()?;
                child.wait()?;
                Err(error)
            }
        }
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGSTOP: the process keeps its connections and answers nothing.
    pub(crate) fn pause(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// Sends SIGCONT.
    pub(crate) fn resume(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// Sends SIGTERM, then SIGKILL after a limit. Returns when the process has ended.
    pub(crate) fn stop(mut self) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline && self.child.try_wait()?.is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The end of the log, for error messages.
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, signal).map_err(std::io::Error::from)?;
        }
        Ok(())
    }
}

impl Drop for Server {
    /// Sends SIGKILL, which also ends a paused process, and waits for the end. The port is free afterwards.
    fn drop(&mut self) {
        // The watchdog goes first: it must not know a process id that another process may get.
        self.watchdog.dismiss();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shell that waits for the end of a pipe. The pipe ends with the test process. The shell then kills the server and
/// removes its data.
///
/// The parent's death signal would not do, because it belongs to a thread, not to the process. A server that several
/// tests share would die with the thread of the first test.
#[derive(Debug)]
struct Watchdog {
    child: Child,
    _pipe: Option<ChildStdin>,
}

/// Removal is tried a few times, because other nodes of the same backend may still be writing.
const WATCH: &str = r#"
while read -r line; do :; done
kill -KILL "$1"
for attempt in 1 2 3 4 5; do rm -rf "$2" 2>/dev/null && exit; sleep 0.2; done
"#;

impl Watchdog {
    fn over(process: u32, data: &Path) -> Result<Self, Error> {
        let mut child = Command::new("/bin/sh")
            .args(["-c", WATCH, "watchdog"])
            .arg(process.to_string())
            .arg(data)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Spawn {
                program: PathBuf::from("/bin/sh"),
                source,
            })?;
        let pipe = child.stdin.take();
        Ok(Self { child, _pipe: pipe })
    }

    fn dismiss(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> std::io::Result<String> {
    const LENGTH: u64 = 4_000;
    let length = fs::metadata(log)?.len();
    let mut file = File::open(log)?;
    file.seek(SeekFrom::Start(length.saturating_sub(LENGTH)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
