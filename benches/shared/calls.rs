//! Concurrent calls: a number of them, for a period, or at a rate.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{runtime::Runtime, task::JoinSet};

/// Sends requests 0, 1, 2, … with this many in flight.
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

/// How long each call took in microseconds. Each caller makes one call after the other for this long. A call gets a
/// number: those of one caller are consecutive, and each caller begins with a different one.
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

/// Begins this many calls per second for this long, whether or not earlier ones are answered. Returns the result of
/// each when all have ended.
///
/// A call gets its number and the moment at which it is due. Times must count from that moment, so that a stall shows
/// in all calls that it delays ("coordinated omission", Gil Tene, 2013).
pub fn call_at_rate<F>(
    runtime: &Runtime,
    rate: f64,
    time: Duration,
    call: impl Fn(u32, Instant) -> F,
) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let mut tasks = JoinSet::new();
    let begun = Instant::now();
    for number in 0..(rate * time.as_secs_f64()) as u32 {
        let due = begun + Duration::from_secs_f64(f64::from(number) / rate);
        // This thread sleeps with a precision of about 60 µs; the runtime's timers have 1 ms.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        tasks.spawn_on(call(number, due), runtime.handle());
    }
    runtime.block_on(tasks.join_all())
}
