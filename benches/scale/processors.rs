//! Pins processes to processors. A second instance adds something only if it has a processor that the first does not
//! use.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::report::say;

/// With this many processors each instance has its own, the client another, and the servers the rest.
const ENOUGH: usize = 8;

/// The processors of all processes. Without `taskset` (util-linux) nothing is pinned, and the output says so.
pub struct Places {
    processors: Vec<usize>,
    /// Whether processes can be pinned.
    pins: bool,
}

impl Places {
    /// Divides the processors that this process may use, and pins this process, the client, to its own.
    pub fn find() -> Self {
        let processors = allowed();
        let own = std::process::id();
        let all = list(&processors);
        let places = Self {
            pins: !processors.is_empty() && pin(&["-a"], &all, own),
            processors,
        };
        let number = places.processors.len();
        if !places.pins {
            say!("nothing is pinned: taskset (util-linux) is not there, or not allowed");
        } else if number < ENOUGH {
            say!(
                "{number} processors: each instance is pinned to one, and shares it with others; client and servers are where there is room. \
                 What a second instance adds here says little; the processor time of each process is what to compute with."
            );
        } else {
            pin(&["-a"], &places.of_client(), own);
            say!(
                "{number} processors: each instance has one of its own, the client one, MongoDB and Kafka {}",
                places.of_servers()
            );
        }
        places
    }

    /// Pins these processes to the servers' processors.
    pub fn servers(&self, processes: impl IntoIterator<Item = u32>) {
        if self.pins {
            for process in processes {
                assert!(pin(&["-a"], &self.of_servers(), process), "{process}");
            }
        }
    }

    /// Starts the instance with this number on its processor. Processes inherit the pinning of the thread that starts
    /// them.
    pub fn start<T>(&self, number: usize, start: impl FnOnce() -> T) -> T {
        if !self.pins {
            return start();
        }
        // A process and its first thread have the same id.
        let own = std::process::id();
        let first = usize::from(self.has_enough());
        let place = self.processors[(first + number) % self.processors.len()];
        assert!(pin(&[], &place.to_string(), own), "{place}");
        let started = start();
        assert!(pin(&[], &self.of_client(), own));
        started
    }

    /// The place of a second instance beside the one with this number: the free one, or with few processors that of its
    /// neighbour.
    pub fn of_second(&self, number: usize) -> usize {
        if self.has_enough() { 3 } else { number + 1 }
    }

    fn has_enough(&self) -> bool {
        self.processors.len() >= ENOUGH
    }

    fn of_client(&self) -> String {
        let own = if self.has_enough() {
            1
        } else {
            self.processors.len()
        };
        list(&self.processors[..own])
    }

    fn of_servers(&self) -> String {
        // The processors after those of the client and of four instances.
        let before = if self.has_enough() { 5 } else { 0 };
        list(&self.processors[before..])
    }
}

/// The processors that this process may use, as Linux reports them (`0-3,6`). Empty on other systems.
fn allowed() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let ranges = line.unwrap_or_default().trim().split(',');
    let parsed = ranges.filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<usize>().ok()?..=last.parse().ok()?)
    });
    parsed.flatten().collect()
}

fn list(processors: &[usize]) -> String {
    let numbers: Vec<String> = processors.iter().map(usize::to_string).collect();
    numbers.join(",")
}

/// Pins a thread, or with `-a` a whole process, to these processors. Returns whether it succeeded.
fn pin(flags: &[&str], processors: &str, process: u32) -> bool {
    let status = Command::new("taskset")
        .args(flags)
        .args(["-p", "-c", processors, &process.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}
