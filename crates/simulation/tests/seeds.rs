//! Seeds that everybody runs, and that a seed is the same run every time.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::{self, available_parallelism},
};

use tandem_simulation::run::{Options, Report, run};

/// Runs seeds on all cores; answers those of which something is wrong.
fn wrong_of(seeds: std::ops::Range<u64>) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return wrong;
            }
            let report = run(seed, &Options::default()).unwrap();
            if !report.violations.is_empty() {
                wrong.push(report);
            }
        }
    };
    let threads = available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let wrong = running.into_iter().map(|it| it.join().unwrap());
        wrong.flatten().collect()
    })
}

#[test]
fn three_hundred_seeds_show_nothing_wrong() {
    let wrong = wrong_of(0..300);
    let told: Vec<_> = wrong.iter().map(|it| (it.seed, &it.violations)).collect();
    assert!(
        wrong.is_empty(),
        "`cargo run -p tandem-simulation -- --seed N` shows what happened: {told:#?}"
    );
}

#[test]
fn a_seed_is_the_same_run_to_the_letter() {
    for seed in 0..25 {
        let first = run(seed, &Options::default()).unwrap();
        let second = thread::spawn(move || run(seed, &Options::default()).unwrap());
        let second = second.join().unwrap();
        assert_eq!(first.newest, second.newest, "seed {seed}");
        assert_eq!(first.digest, second.digest, "seed {seed}");
    }
}
