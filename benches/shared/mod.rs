//! Shared code of the benchmarks: a client, concurrent calls, and summaries of rounds.
#![allow(dead_code, unused_imports)] // each benchmark uses some of it

mod calls;
mod lean_client;
mod processor;

pub use calls::{call_at_rate, call_times, send_all};
pub use lean_client::LeanClient;
pub use processor::{Processes, Spent, resident_mib, waits};

/// The median of an odd number of values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which this fraction of the sorted values lies.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part) as usize;
    sorted[place.min(sorted.len() - 1)]
}
