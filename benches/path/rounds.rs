//! Rounds of calls, and their summary.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

use crate::{report::say, shared::median};

/// An odd number, for the median. Large enough that a burst of other work on a shared machine affects only some rounds.
pub const ROUNDS: usize = 9;
pub const ROUND: Duration = Duration::from_secs(3);

/// The result of a round.
pub struct Round {
    pub calls: u64,
    seconds: f64,
}

impl Round {
    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }
}

/// A round of calls of `work` with this many in flight.
pub fn load<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    in_flight: usize,
    work: impl Fn() -> F + Send + Sync + 'static,
) -> Round {
    let work = Arc::new(work);
    let begun = Instant::now();
    let calls: u64 = runtime.block_on(async {
        let tasks: Vec<_> = (0..in_flight)
            .map(|_| {
                let work = Arc::clone(&work);
                tokio::spawn(async move {
                    let mut done = 0;
                    while begun.elapsed() < ROUND {
                        work().await;
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut sum = 0;
        for task in tasks {
            sum += task.await.unwrap();
        }
        sum
    });
    Round {
        calls,
        seconds: begun.elapsed().as_secs_f64(),
    }
}

/// Prints the medians of both and the median of their ratios per round. Returns the medians of both.
pub fn show(what: &str, unit: &str, rounds: &[(f64, f64)]) -> [f64; 2] {
    let ours = median(rounds.iter().map(|round| round.0).collect());
    let floor = median(rounds.iter().map(|round| round.1).collect());
    let ratio = median(rounds.iter().map(|round| round.0 / round.1).collect());
    say!("{what:<58} {ours:>10.1} {floor:>10.1} {unit:<4} ratio {ratio:>6.2}");
    [ours, floor]
}
