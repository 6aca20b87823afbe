//! Processor time by process. On shared machines it says more than elapsed time.

use std::{fs, path::Path};

use super::median;

/// The processes that take part in a measurement.
#[derive(Clone, Default)]
pub struct Processes(Vec<(&'static str, u32)>);

/// The processor time of each process per piece of work, in microseconds, for each round.
#[derive(Default)]
pub struct Spent(Vec<Vec<f64>>);

impl Processes {
    /// Takes names and process ids.
    pub fn new(processes: impl IntoIterator<Item = (&'static str, u32)>) -> Self {
        Self(processes.into_iter().collect())
    }

    /// Microseconds that each process has used since it began.
    pub fn used(&self) -> Vec<f64> {
        self.0.iter().map(|(_, process)| used(*process)).collect()
    }

    /// The median over the rounds, per process.
    pub fn medians(&self, spent: &Spent) -> Vec<f64> {
        (0..self.0.len())
            .map(|process| median(spent.0.iter().map(|round| round[process]).collect()))
            .collect()
    }

    /// The median over the rounds, as a line.
    pub fn told(&self, what: &str, spent: &Spent) -> String {
        let each = self.medians(spent);
        let names = self.0.iter().map(|(name, _)| name).zip(&each);
        let parts: Vec<String> = names
            .filter(|(_, microseconds)| **microseconds >= 1.0)
            .map(|(name, microseconds)| format!("{name} {microseconds:.0}"))
            .collect();
        let sum: f64 = each.iter().sum();
        format!(
            "  {what:<10} {sum:>6.0} µs of processor time: {}",
            parts.join(", ")
        )
    }
}

impl Spent {
    /// Adds a round from what was used before and after this many pieces of work.
    pub fn add(&mut self, before: &[f64], after: &[f64], pieces: u64) {
        let each = before.iter().zip(after);
        let round = each.map(|(before, after)| (after - before) / pieces.max(1) as f64);
        self.0.push(round.collect());
    }
}

/// The sum over the living threads, as Linux counts it (`/proc/PID/task/*/schedstat`, nanoseconds on a processor). 0 on
/// other systems. The time of ended threads is not included, because Linux reports that only in hundredths of a second.
fn used(process: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let nanoseconds: f64 = threads
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| nanoseconds(&thread.path()))
        .sum();
    nanoseconds / 1_000.0
}

fn nanoseconds(thread: &Path) -> f64 {
    // The thread may have ended meanwhile.
    let statistics = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let first = statistics.split_whitespace().next().unwrap_or_default();
    first.parse().unwrap_or_default()
}

/// How often the threads of a process have given up their processor to wait for something, since the process began.
pub fn waits(process: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{process}/task"));
    let of = |thread: &Path| -> Option<f64> {
        let status = fs::read_to_string(thread.join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse().ok()
    };
    let threads = threads.into_iter().flatten().flatten();
    threads.filter_map(|thread| of(&thread.path())).sum()
}

/// Resident memory of a process, in MiB.
pub fn resident_mib(process: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib: f64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .unwrap_or_default();
    kib / 1_024.0
}
