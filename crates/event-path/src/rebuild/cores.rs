//! Processes many items in parallel on all cores, off the threads that serve requests.

use std::{num::NonZero, sync::Arc, thread::available_parallelism};

use crate::store::StoreError;

/// With fewer items than this, another thread does not pay off.
const FEW: usize = 64;

/// Applies `work` to each item, on as many threads as there are cores. The results have the order of the items.
///
/// # Errors
/// When a part panicked, or the runtime is ending.
pub async fn on_all_cores<T, R>(
    mut things: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync + 'static,
) -> Result<Vec<R>, StoreError>
where
    T: Send + 'static,
    R: Send + 'static,
{
    if things.len() < FEW {
        return Ok(things.into_iter().map(work).collect());
    }
    let cores = available_parallelism().map_or(1, NonZero::get);
    let part = things.len().div_ceil(cores);
    let work = Arc::new(work);
    let mut parts = Vec::with_capacity(cores);
    let mut results = Vec::with_capacity(things.len());
    while !things.is_empty() {
        let rest = things.split_off(part.min(things.len()));
        let (some, work) = (std::mem::replace(&mut things, rest), Arc::clone(&work));
        parts.push(tokio::task::spawn_blocking(move || {
            some.into_iter()
                .map(|thing| work(thing))
                .collect::<Vec<R>>()
        }));
    }
    for part in parts {
        results.extend(part.await.map_err(|error| {
            StoreError::Unavailable(format!("a part of the work was broken off: {error}"))
        })?);
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn results_are_in_the_order_of_the_things() {
        for count in [0, 1, 63, 64, 65, 1_001] {
            let things: Vec<usize> = (0..count).collect();
            let doubled = on_all_cores(things, |thing| thing * 2).await.unwrap();
            assert_eq!(
                doubled,
                (0..count).map(|thing| thing * 2).collect::<Vec<_>>()
            );
        }
    }
}
