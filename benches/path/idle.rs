//! What each process uses while there are no requests.

use std::time::{Duration, Instant};

use crate::{
    report::say,
    shared::{Processes, resident_mib, waits},
};

/// How long a system is left alone after its start before it is measured.
const SETTLES: Duration = Duration::from_secs(10);
/// How long it is measured without requests.
const IDLE: Duration = Duration::from_secs(30);

/// Measures these processes, and the sum of our own.
pub fn measure(ours: &[(&'static str, u32)], others: &[(&'static str, u32)]) {
    std::thread::sleep(SETTLES);
    let all: Vec<(&'static str, u32)> = [ours, others].concat();
    let processes = Processes::new(all.iter().copied());
    let woken = || -> Vec<f64> { all.iter().map(|(_, process)| waits(*process)).collect() };
    let (used, woke, begun) = (processes.used(), woken(), Instant::now());
    std::thread::sleep(IDLE);
    let (used_then, woke_then) = (processes.used(), woken());
    let seconds = begun.elapsed().as_secs_f64();
    say!(
        "idle for {} s{:<17} {:>16} {:>12} {:>14}",
        IDLE.as_secs(),
        "",
        "% of a processor",
        "MiB resident",
        "waits a second"
    );
    let show = |name: &str, share: f64, held: f64, woke: f64| {
        say!("{name:<30} {share:>16.2} {held:>12.1} {woke:>14.0}");
    };
    let (mut share_of_ours, mut held_by_ours, mut woke_of_ours) = (0.0, 0.0, 0.0);
    for (number, (name, process)) in all.iter().enumerate() {
        // Microseconds of processor time per second, as a percentage of one processor.
        let share = (used_then[number] - used[number]) / seconds / 10_000.0;
        let woke = (woke_then[number] - woke[number]) / seconds;
        let held = resident_mib(*process);
        show(name, share, held, woke);
        if number < ours.len() {
            share_of_ours += share;
            held_by_ours += held;
            woke_of_ours += woke;
        }
        if number + 1 == ours.len() {
            show(
                "together, of Tandem",
                share_of_ours,
                held_by_ours,
                woke_of_ours,
            );
        }
    }
}
