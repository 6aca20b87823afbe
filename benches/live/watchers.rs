//! Watchers: subscriptions to customers' orders. Each records when it receives a change.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use serde_json::json;
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::{
    socket::{Socket, find},
    support::poll_for,
};

const FEED: &str = "subscription($customerId: ID) {
    orderFeed(customerId: $customerId, snapshot: true, heartbeatSeconds: 300) { __typename
        ... on OrderUpdate { cursor previous type order { id revision status } }
        ... on OrderSnapshot { cursor previous complete }
        ... on Heartbeat { cursor previous } } }";
/// What precedes the type name of an item.
const TYPE: &[u8] = b"\"__typename\":\"";
/// How many sockets are opened concurrently.
const AT_ONCE: usize = 64;
/// Time limit for opening all sockets, and for a change to arrive.
const PATIENCE: Duration = Duration::from_secs(600);

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Microseconds since this process began to measure.
pub fn now() -> u64 {
    u64::try_from(BEGUN.elapsed().as_micros()).unwrap()
}

#[derive(Default)]
struct Notes {
    /// When each watcher received its last change.
    arrivals: Vec<AtomicU64>,
    /// The number of watchers that have their snapshot.
    ready: AtomicUsize,
    /// The number of changes that arrived.
    arrived: AtomicUsize,
}

/// A group of watchers. They disconnect when this is dropped.
pub struct Watchers {
    notes: Arc<Notes>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watchers {
    /// Opens this many watchers, with `on_one` of them on each socket. Each one subscribes to the orders of its
    /// customer. Waits until all have their snapshot.
    pub fn open(
        runtime: &Runtime,
        port: u16,
        count: usize,
        on_one: usize,
        customer: impl Fn(usize) -> String,
    ) -> Self {
        let notes = Arc::new(Notes {
            arrivals: (0..count).map(|_| AtomicU64::new(0)).collect(),
            ..Notes::default()
        });
        let sockets: Vec<Vec<(usize, String)>> = (0..count)
            .map(|number| (number, customer(number)))
            .collect::<Vec<_>>()
            .chunks(on_one)
            .map(<[_]>::to_vec)
            .collect();
        let tasks = runtime.block_on(
            stream::iter(sockets)
                .map(|members| open_one(port, members, Arc::clone(&notes)))
                .buffer_unordered(AT_ONCE)
                .collect(),
        );
        let watchers = Self { notes, tasks };
        poll_for(PATIENCE, "every watcher has its snapshot", || {
            (watchers.notes.ready.load(Ordering::Relaxed) >= count).then_some(())
        });
        watchers
    }

    /// How many changes have arrived.
    pub fn arrived(&self) -> usize {
        self.notes.arrived.load(Ordering::Relaxed)
    }

    /// Waits until this many changes have arrived.
    pub async fn wait_for(&self, arrived: usize) {
        let begun = Instant::now();
        while self.arrived() < arrived {
            assert!(begun.elapsed() < PATIENCE, "{} arrived", self.arrived());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Milliseconds from a moment until each watcher received its last change, sorted.
    pub fn since(&self, moment: u64) -> Vec<f64> {
        let arrivals = self.notes.arrivals.iter();
        let mut since: Vec<f64> = arrivals
            .map(|arrival| arrival.load(Ordering::Relaxed).saturating_sub(moment) as f64 / 1_000.0)
            .collect();
        since.sort_by(f64::total_cmp);
        since
    }
}

impl Drop for Watchers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn open_one(port: u16, members: Vec<(usize, String)>, notes: Arc<Notes>) -> JoinHandle<()> {
    let mut socket = Socket::open(port).await;
    for (number, customer) in &members {
        let payload = json!({"query": FEED, "variables": {"customerId": customer}});
        let subscribe = json!({"id": number.to_string(), "type": "subscribe", "payload": payload});
        socket.say(&subscribe.to_string()).await;
    }
    tokio::spawn(async move {
        loop {
            socket.read(|text| note(text, &notes)).await;
        }
    })
}

fn note(text: &[u8], notes: &Notes) {
    let Some(begin) = find(text, TYPE).map(|at| at + TYPE.len()) else {
        panic!("{}", String::from_utf8_lossy(text));
    };
    let kind = &text[begin..];
    if kind.starts_with(b"OrderUpdate") {
        let number = number(text);
        notes.arrivals[number].store(now(), Ordering::Relaxed);
        notes.arrived.fetch_add(1, Ordering::Relaxed);
    } else if kind.starts_with(b"OrderSnapshot") {
        notes.ready.fetch_add(1, Ordering::Relaxed);
    }
}

/// The watcher that a message belongs to: `{"id":"N",…`.
fn number(text: &[u8]) -> usize {
    let digits = text.iter().skip(7).take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
}
