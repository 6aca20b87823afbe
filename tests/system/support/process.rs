//! A child process that ends with its test, and queries about processes.

use std::{
    io::{BufRead, BufReader, Read},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::{poll, poll_for};
pub use rustix::process::Signal;

/// A started process whose output is recorded. It is killed on drop.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    errors: Arc<Mutex<String>>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts the command with its output captured.
    pub fn start(command: &mut Command) -> Self {
        Self::start_from(command, Stdio::null())
    }

    /// Like [`Self::start`], with a standard input that ends when this value is dropped.
    pub fn start_with_input(command: &mut Command) -> Self {
        Self::start_from(command, Stdio::piped())
    }

    fn start_from(command: &mut Command, input: Stdio) -> Self {
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (output, output_reader) = collect(child.stdout.take().unwrap());
        let (errors, errors_reader) = collect(child.stderr.take().unwrap());
        Self {
            child,
            output,
            errors,
            readers: vec![output_reader, errors_reader],
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// What it has written to standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Everything that a finished process wrote to standard output and to standard error.
    pub fn all_output(&mut self) -> (String, String) {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        (self.output(), self.errors())
    }

    pub fn signal(&self, which: Signal) {
        signal(self.id(), which);
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until it ends.
    #[track_caller]
    pub fn wait_for_end(&mut self, limit: Duration) -> ExitStatus {
        poll_for(limit, "the process ends", || self.child.try_wait().unwrap())
    }

    /// Waits for a line of standard output that satisfies the condition.
    #[track_caller]
    pub fn wait_for_line(&mut self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        let line = poll(what, || {
            if let Some(line) = self.output().lines().find(|line| condition(line)) {
                return Some(Ok(line.to_owned()));
            }
            self.ended().map(Err)
        });
        line.unwrap_or_else(|status| {
            panic!(
                "ended with {status} instead of: {what}\n{}\n{}",
                self.output(),
                self.errors()
            )
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            println!(
                "--- output\n{}\n--- errors\n{}",
                self.output(),
                self.errors()
            );
        }
    }
}

fn collect(source: impl Read + Send + 'static) -> (Arc<Mutex<String>>, thread::JoinHandle<()>) {
    let text = Arc::new(Mutex::new(String::new()));
    let shared = text.clone();
    let reader = thread::spawn(move || {
        for line in BufReader::new(source).lines().map_while(Result::ok) {
            let mut text = shared.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
    (text, reader)
}

fn pid(id: u32) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Sends a signal to any process.
pub fn signal(id: u32, which: Signal) {
    rustix::process::kill_process(pid(id), which).unwrap();
}

/// Sends a signal to a process that may have ended. Returns whether it still existed.
pub fn try_signal(id: u32, which: Signal) -> bool {
    rustix::process::kill_process(pid(id), which).is_ok()
}

/// Limits the file size of a process, in bytes or `unlimited`. Returns whether that succeeded: it needs `prlimit` of
/// util-linux and a running process.
pub fn limit_files(process: u32, bytes: &str) -> bool {
    let limit = Command::new("prlimit")
        .args(["--pid", &process.to_string(), &format!("--fsize={bytes}:")])
        .stderr(Stdio::null())
        .status();
    limit.is_ok_and(|status| status.success())
}

/// Whether the process exists and is not a zombie.
pub fn is_alive(id: u32) -> bool {
    if rustix::process::test_kill_process(pid(id)).is_err() {
        return false;
    }
    // Without /proc (macOS), a process whose parent has ended is reaped at once, so the check above is enough.
    std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/stat")))
        .ok()
        .and_then(|stat| {
            stat.rsplit_once(')')
                .map(|(_, rest)| !rest.trim_start().starts_with('Z'))
        })
        .unwrap_or(!PathBuf::from("/proc/self").exists())
}
