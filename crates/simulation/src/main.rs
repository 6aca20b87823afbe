//! Runs seeds of the simulation and reports violations.
#![allow(clippy::print_stdout)] // it is what a command is for

use std::{
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, available_parallelism},
    time::{Duration, Instant},
};

use clap::Parser;
use tandem_simulation::{
    faults::{ALL, Fault, Faults, RARE},
    log::foreign::Forgers,
    run::{Options, Report, run},
};

/// Runs the event path of both services in virtual time.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 300)]
    seeds: u64,

    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,

    /// This seed alone, with its whole trace.
    #[arg(long)]
    seed: Option<u64>,

    /// Go on when something is wrong.
    #[arg(long)]
    all: bool,

    /// A fault to plant, as `tests/planted.rs` tells its name, such as `BeginsAtTheEnd`; may be given many times.
    #[arg(long, value_parser = fault)]
    fault: Vec<Fault>,

    /// Events are forged in another system's name alone.
    #[arg(long)]
    other_systems: bool,

    /// The log may lose records: by retention, or because a topic is made anew.
    #[arg(long)]
    losses: bool,
}

impl Arguments {
    fn options(&self, trace: bool) -> Options {
        Options {
            trace,
            faults: Faults::planted(&self.fault),
            forgers: if self.other_systems {
                Forgers::OtherSystems
            } else {
                Forgers::Anybody
            },
            loses: self.losses,
        }
    }
}

fn fault(name: &str) -> Result<Fault, String> {
    let is_it = |fault: &Fault| {
        let told = format!("{fault:?}");
        told == name || told == format!("Code({name})")
    };
    let mut all = ALL.into_iter().chain(RARE);
    all.find(is_it)
        .ok_or_else(|| format!("no fault is called {name}"))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return match run(seed, &arguments.options(true)) {
            Ok(report) => show(&report),
            Err(error) => failed(&error),
        };
    }
    run_many(&arguments)
}

fn failed(error: &std::io::Error) -> ExitCode {
    println!("no runtime: {error}");
    ExitCode::FAILURE
}

fn show(report: &Report) -> ExitCode {
    let Report {
        seed,
        digest,
        simulated,
        requests,
        answered,
        ..
    } = report;
    println!(
        "seed {seed}: {requests} requests, {answered} answered, {} s, trace {digest:016x}",
        simulated.as_secs()
    );
    for violation in &report.violations {
        println!("  {violation}");
    }
    if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[allow(clippy::disallowed_methods, clippy::cast_precision_loss)] // how long it really took, to be shown
fn run_many(arguments: &Arguments) -> ExitCode {
    let (begun, options) = (Instant::now(), arguments.options(false));
    let last = arguments.from + arguments.seeds;
    let next = AtomicU64::new(arguments.from);
    let (stopped, done, wrong) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let simulated = AtomicU64::new(0);
    let work = || {
        while !stopped.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= last {
                return;
            }
            let report = match run(seed, &options) {
                Ok(report) => report,
                Err(error) => {
                    failed(&error);
                    return;
                }
            };
            done.fetch_add(1, Ordering::Relaxed);
            simulated.fetch_add(report.simulated.as_secs(), Ordering::Relaxed);
            if !report.violations.is_empty() {
                wrong.fetch_add(1, Ordering::Relaxed);
                show(&report);
                stopped.store(!arguments.all, Ordering::Relaxed);
            }
        }
    };
    let threads = available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let (done, wrong) = (done.into_inner(), wrong.into_inner());
    let took = begun.elapsed().max(Duration::from_millis(1)).as_secs_f64();
    let hours = simulated.into_inner() as f64 / 3_600.0;
    println!(
        "{done} seeds, {wrong} wrong, {took:.1} s: {:.1} seeds/s, {:.2} simulated hours/s",
        done as f64 / took,
        hours / took
    );
    if wrong == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
