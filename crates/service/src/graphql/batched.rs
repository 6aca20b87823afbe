//! Loaders: keys that the resolvers of one operation request at the same time are read together.

use std::{fmt::Debug, hash::Hash};

use dataloader::{BatchFn, cached::Loader};

/// Most keys in one read. More keys are split over several reads.
const BATCH: usize = 1_000;
/// How often the loader yields before it sends a read. The resolvers of an operation run in one task, so after one
/// yield every resolver that requests a key now has done so. Each further yield makes the whole runtime poll the
/// network, and only costs time.
const TURNS: usize = 1;

/// A loader that has read nothing yet. It caches what it reads, so it must not outlive its operation.
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
