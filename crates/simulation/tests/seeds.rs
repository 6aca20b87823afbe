//! Seeds that every test run includes, and the check that a seed gives the same run every time.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread::{self, available_parallelism},
};

use tandem_simulation::run::{Options, Report, run};

/// Runs seeds on all cores. Returns the reports with violations.
fn wrong_of(seeds: std::ops::Range<u64>, options: &Options) -> Vec<Report> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut wrong = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return wrong;
            }
            let report = run(seed, options).unwrap();
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
    let wrong = wrong_of(0..300, &Options::default());
    let wrong = told(&wrong);
    assert!(
        wrong.is_empty(),
        "`cargo run -p tandem-simulation -- --seed N` shows what happened: {wrong:#?}"
    );
}

#[test]
fn a_log_that_loses_records_is_told_of_takes_nothing_from_anybody_and_is_mended() {
    let options = Options {
        loses: true,
        ..Options::default()
    };
    let wrong = wrong_of(0..150, &options);
    let wrong = told(&wrong);
    assert!(
        wrong.is_empty(),
        "`cargo run -p tandem-simulation -- --losses --seed N` shows what happened: {wrong:#?}"
    );
}

fn told(wrong: &[Report]) -> Vec<(u64, &[String])> {
    wrong
        .iter()
        .map(|it| (it.seed, it.violations.as_slice()))
        .collect()
}

/// Without signatures, only the name of the system distinguishes its events. An erasure in an event of another system
/// must still not be applied: not by the replica, a rebuild, an audit trail, a live feed or a new store, and not before
/// the topics have been claimed.
#[test]
#[cfg(debug_assertions)] // without them nothing of the faults is in the code
fn an_erasure_of_another_system_is_applied_nowhere_even_if_nobody_checks_signatures() {
    use tandem_simulation::{
        faults::{Fault, Faults},
        log::foreign::Forgers,
    };
    let unchecked = Fault::Code(tandem_event_path::fault::Fault::SignatureNotChecked);
    let options = Options {
        faults: Faults::planted(&[unchecked]),
        forgers: Forgers::OtherSystems,
        ..Options::default()
    };
    let wrong = wrong_of(0..200, &options);
    let wrong = told(&wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
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
