//! Plants faults on purpose. Each one must be found within 1,500 seeds.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]
#![cfg(debug_assertions)] // without them nothing of the faults is in the code

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, available_parallelism},
};

use tandem_simulation::{
    faults::{ALL, Faults},
    run::{Options, run},
};

/// So many seeds may be needed to find one.
const SEEDS: u64 = 1_500;

/// Which seed was the first to find a fault for which many had to be tried. It is tried first, so that what is found again is found at once; a change
/// of what is simulated makes other runs of all seeds, and then all are tried.
const FIRST_TRIED: [(&str, u64); 5] = [
    ("Code(CommitBeforeWrite)", 401),
    ("Code(OlderBelieved)", 208),
    ("Code(ReadMeanwhileDropped)", 1150),
    ("Code(RestoredByHalf)", 785),
    ("Code(SealedAsBefore)", 235),
];

/// A seed that shows something wrong which it does not show without the fault, and what.
fn found_by(fault: &str, planted: &Options) -> Option<(u64, String)> {
    let known = FIRST_TRIED.iter().filter(|(name, _)| *name == fault);
    let mut seeds = known.map(|(_, seed)| *seed).chain(0..SEEDS);
    seeds.find_map(|seed| {
        let report = run(seed, planted).unwrap();
        let violation = report.violations.into_iter().next()?;
        let whole = Options {
            loses: planted.loses,
            ..Options::default()
        };
        let without = run(seed, &whole).unwrap();
        without.violations.is_empty().then_some((seed, violation))
    })
}

#[test]
fn every_planted_fault_is_found() {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(fault) = ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
            let planted = Options {
                faults: Faults::planted(&[*fault]),
                loses: fault.is_of_losses(),
                ..Options::default()
            };
            let name = format!("{fault:?}");
            let result = found_by(&name, &planted);
            match &result {
                Some((seed, violation)) => println!("{name}: seed {seed}: {violation}"),
                None => println!("{name}: NOT FOUND"),
            }
            found.lock().unwrap().insert(name, result);
        }
    };
    let threads = available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().unwrap();
    let missed: Vec<_> = found.iter().filter(|(_, it)| it.is_none()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
