//! Calls by many at once: so many of them, or for so long.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;

/// Sends requests 0, 1, 2, … with so many in flight.
pub async fn send_all<F: Future>(in_flight: usize, count: usize, request: impl Fn(usize) -> F) {
    let next = AtomicUsize::new(0);
    let workers = (0..in_flight).map(async |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return;
            }
            request(number).await;
        }
    });
    futures::future::join_all(workers).await;
}

/// How long each call took, in microseconds, of callers who call again and again for this long. A call is given a number: those of a
/// caller follow each other, and callers begin apart.
pub fn call_times<F: Future<Output = ()> + Send + 'static>(
    runtime: &Runtime,
    in_flight: usize,
    round: Duration,
    work: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Vec<f64> {
    let work = Arc::new(work);
    let begun = Instant::now();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..in_flight)
            .map(|task| {
                let work = Arc::clone(&work);
                tokio::spawn(async move {
                    let (mut times, mut number) = (Vec::new(), task * 7);
                    while begun.elapsed() < round {
                        let asked = Instant::now();
                        work(number).await;
                        times.push(asked.elapsed().as_secs_f64() * 1e6);
                        number += 1;
                    }
                    times
                })
            })
            .collect();
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all
    })
}
