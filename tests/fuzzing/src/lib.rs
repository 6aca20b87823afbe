//! Fuzzing of everything that reads bytes from outside: see [`targets`].
//!
//! `cargo test` makes the inputs by mutation of a committed corpus, for some seconds per target. `tests/fuzzing/run`
//! lets libFuzzer make them, which keeps inputs that reach new code. An input that either one finds is added to the
//! corpus, so that it is tried first from then on.
#![allow(clippy::disallowed_methods, reason = "a fuzzer runs for real seconds")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    missing_docs
)]

mod corpus;
pub mod targets;

pub use corpus::Corpus;

/// Tries a target with the inputs of its corpus and with mutations of them, until its time is over.
///
/// # Panics
/// When there is no such target, and when the target misbehaves.
pub fn try_target(name: &str) {
    let target = targets::named(name).unwrap();
    let mut reader = (target.open)();
    for input in Corpus::of(name, (target.seeds)()) {
        reader(&input);
    }
}
