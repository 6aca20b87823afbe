//! What the benchmarks share: a client, and how rounds are summed up.
#![allow(dead_code)] // each benchmark uses some of it

mod lean_client;

pub use lean_client::LeanClient;

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
