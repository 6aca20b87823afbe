//! Inputs that nobody thought of, for whatever reads bytes from outside: see [`targets`].
//!
//! `cargo test` makes them of a committed corpus by mutation, for some seconds a target. `tests/fuzzing/run` lets libFuzzer make them, which
//! keeps what reaches code that nothing reached before. What either finds is put into the corpus, so that it is tried first from then on.
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

/// Tries a target with the inputs of its corpus, and with others made of them until its time is over.
///
/// # Panics
/// When there is no such target, and when it does what it must not.
pub fn try_target(name: &str) {
    let target = targets::named(name).unwrap();
    let mut reader = (target.open)();
    for input in Corpus::of(name, (target.seeds)()) {
        reader(&input);
    }
}
