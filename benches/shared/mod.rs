//! What the benchmarks share: a client, calls by many at once, and how rounds are summed up.
#![allow(dead_code, unused_imports)] // each benchmark uses some of it

mod calls;
mod lean_client;
mod processor;

pub use calls::{call_at_rate, call_times, send_all};
pub use lean_client::LeanClient;
pub use processor::{Processes, Spent, resident_mib, waits};

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that a part of the sorted values is below.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part) as usize;
    sorted[place.min(sorted.len() - 1)]
}
