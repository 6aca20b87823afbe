//! The output of a child. All of it goes to the child's log file; warnings and errors also go to the terminal.
#![expect(clippy::disallowed_methods, reason = "a command runs on real time")]

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{Error, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    task::JoinHandle,
};

use super::{service::Service, terminal::Terminal};

/// The size in bytes at which the log file is renamed to `SERVICE.1.log`.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;
/// How many of the last lines to keep for the message when a child does not start.
const TAIL: usize = 20;
/// How many warnings to show per [`PERIOD`]. The others are only in the file.
const SHOWN: u32 = 10;
const PERIOD: Duration = Duration::from_secs(10);
/// How a failure that the command line reports begins.
const SENTENCE: &str = "tandem: ";

/// The log of one service, across all its processes.
#[derive(Clone, Debug)]
pub(super) struct ChildLog {
    service: Service,
    terminal: Terminal,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    path: PathBuf,
    file: File,
    size: u64,
    tail: VecDeque<String>,
    period: Instant,
    shown: u32,
}

impl ChildLog {
    /// Begins a new file. The file of the last start is kept beside it.
    ///
    /// # Errors
    ///
    /// When the file cannot be made.
    pub(super) fn open(
        service: Service,
        directory: &Path,
        terminal: Terminal,
    ) -> Result<Self, Error> {
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}.log", service.name()));
        let file = begin(&path)?;
        Ok(Self {
            service,
            terminal,
            state: Arc::new(Mutex::new(State {
                path,
                file,
                size: 0,
                tail: VecDeque::new(),
                period: Instant::now(),
                shown: 0,
            })),
        })
    }

    /// Logs everything that comes from a stream, until the stream ends.
    pub(super) fn follow(&self, stream: impl AsyncRead + Send + Unpin + 'static) -> JoinHandle<()> {
        let log = self.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stream);
            let mut line = Vec::new();
            while reader
                .read_until(b'\n', &mut line)
                .await
                .is_ok_and(|read| read > 0)
            {
                log.take(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
        })
    }

    fn take(&self, line: &str) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the system. The terminal still shows serious lines.
        let _ = state.write(line);
        state.tail.push_back(line.to_owned());
        if state.tail.len() > TAIL {
            state.tail.pop_front();
        }
        if !is_serious(line) {
            return;
        }
        if state.period.elapsed() > PERIOD {
            state.period = Instant::now();
            state.shown = 0;
        }
        state.shown += 1;
        if state.shown <= SHOWN {
            let name = self.service.name();
            self.terminal
                .say(&format!("{name} | {}", without_name(line, name)));
        } else if state.shown == SHOWN + 1 {
            self.terminal.say(&format!(
                "{} | more warnings are in {}",
                self.service.name(),
                state.path.display()
            ));
        }
    }

    /// Forgets the last lines before a new process begins.
    pub(super) fn forget_tail(&self) {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .tail
            .clear();
    }

    /// Why the last process failed: the sentence that it printed, or otherwise its last lines.
    pub(super) fn reason(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sentence) = state
            .tail
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix(SENTENCE))
        {
            return sentence.to_owned();
        }
        if state.tail.is_empty() {
            return format!("it said nothing (log: {})", state.path.display());
        }
        let lines: Vec<&str> = state.tail.iter().map(String::as_str).collect();
        format!("the end of {}:\n{}", state.path.display(), lines.join("\n"))
    }
}

impl State {
    fn write(&mut self, line: &str) -> Result<(), Error> {
        if self.size > LARGEST_FILE {
            self.file = begin(&self.path)?;
            self.size = 0;
        }
        self.size += line.len() as u64 + 1;
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

/// Renames the old file and makes a new one.
fn begin(path: &Path) -> Result<File, Error> {
    if path.exists() {
        std::fs::rename(path, path.with_extension("1.log"))?;
    }
    OpenOptions::new().create(true).append(true).open(path)
}

/// A service begins each line with its name, which the terminal already shows.
fn without_name<'a>(line: &'a str, name: &str) -> &'a str {
    match line.strip_prefix(name) {
        Some(rest) if rest.starts_with(' ') => rest.trim_start(),
        _ => line,
    }
}

fn is_serious(line: &str) -> bool {
    [" WARN ", " ERROR ", "\"WARN\"", "\"ERROR\"", "panicked at"]
        .iter()
        .any(|mark| line.contains(mark))
        && !is_a_clients_mistake(line)
}

/// Codes of errors that a client can correct by itself. The client finds them in its response.
const CLIENTS_MISTAKES: [&str; 7] = [
    "BAD_USER_INPUT",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "REVISION_CONFLICT",
    "INVALID_TRANSITION",
    "CUSTOMER_UNKNOWN",
    "PERSISTED_QUERY_NOT_FOUND",
];

/// Whether a line, in text or JSON form, reports only errors that a client can correct. Such a line stays in the file.
fn is_a_clients_mistake(line: &str) -> bool {
    let codes = ["code=\"", "codes=\"", "\"code\":\"", "\"codes\":\""]
        .iter()
        .find_map(|mark| line.split_once(mark)?.1.split('"').next());
    [
        "a request was refused",
        "an operation was answered with errors",
    ]
    .iter()
    .any(|told| line.contains(told))
        && codes.is_some_and(|codes| {
            codes
                .split(',')
                .all(|code| CLIENTS_MISTAKES.contains(&code))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_can_mend_is_not_shown_and_all_else_is() {
        let shown = |line: &str| is_serious(line);
        let line = |codes: &str| {
            format!(
                "2026 WARN router: an operation was answered with errors request_id=\"1\" codes=\"{codes}\""
            )
        };
        assert!(!shown(&line("BAD_USER_INPUT")));
        assert!(!shown(&line("NOT_FOUND,BAD_USER_INPUT")));
        assert!(shown(&line("NOT_FOUND,UNAVAILABLE")));
        assert!(shown(&line("")));
        assert!(!shown(
            r#"{"level":"WARN","message":"a request was refused","code":"BAD_USER_INPUT"}"#
        ));
        assert!(shown(
            r#"{"level":"WARN","message":"a request was refused","code":"RATE_LIMITED"}"#
        ));
        assert!(shown(
            "2026 WARN orders: another line with code=\"BAD_USER_INPUT\""
        ));
        assert!(!shown("2026 INFO orders: started"));
    }

    #[test]
    fn a_line_that_is_shown_with_its_service_names_it_once() {
        assert_eq!(
            without_name("orders   2026 WARN x", "orders"),
            "2026 WARN x"
        );
        assert_eq!(without_name("ordersome WARN", "orders"), "ordersome WARN");
        assert_eq!(without_name("{\"service\":1}", "orders"), "{\"service\":1}");
    }
}
