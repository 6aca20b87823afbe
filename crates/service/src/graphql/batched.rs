//! Loaders: what the resolvers of one operation ask for at the same time is read at once.

use std::{fmt::Debug, hash::Hash};

use dataloader::{BatchFn, cached::Loader};

/// Keys of one read; more are read in several.
const BATCH: usize = 1_000;
/// How often others get a turn before a read is sent. The resolvers of an operation run in one task: once around, and all that
/// ask at the same time have asked. Each further turn is a look at the network for the whole runtime, and only takes time.
const TURNS: usize = 1;

/// A loader that has read nothing yet. It remembers what it reads, so it must not outlive the operation that it is for.
pub fn batched<K, V, F>(read: F) -> Loader<K, V, F>
where
    K: Clone + Debug + Eq + Hash,
    V: Clone,
    F: BatchFn<K, V>,
{
    Loader::new(read)
        .with_max_batch_size(BATCH)
        .with_yield_count(TURNS)
}
