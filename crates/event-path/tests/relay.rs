#![allow(clippy::disallowed_methods, reason = "tests date what they make")]
#![allow(clippy::unwrap_used)]
//! The relay between an outbox and a log in memory: whatever the store does, pending events are published and cleared.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::{FutureExt, future::BoxFuture};
use tandem_event_path::{
    log::{
        Attention, Log, LogError, Member, Membership, Offsets, PublishError, Publisher, Record,
        Tail, TopicState,
    },
    outbox::{
        Backlog, Outbox, PendingEvent,
        relay::{self, RelayHandle, RelaySettings},
    },
    store::StoreError,
};
use tandem_model::{event::CloudEvent, message::Position};
use tandem_runtime::shutdown::Shutdown;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

const TOPIC: &str = "changes";

/// The pending events, by key and revision. A test may undo a clear.
#[derive(Debug, Default)]
struct MemoryOutbox {
    pending: Mutex<BTreeMap<(String, i64), PendingEvent>>,
    looks: AtomicUsize,
}

impl MemoryOutbox {
    fn put(&self, event: &PendingEvent) {
        let place = (event.key.clone(), event.revision);
        self.pending.lock().unwrap().insert(place, event.clone());
    }

    async fn emptied(&self) {
        let empty = async {
            while !self.pending.lock().unwrap().is_empty() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), empty).await.unwrap();
    }
}

#[async_trait]
impl Outbox for MemoryOutbox {
    async fn pending(
        &self,
        recorded_before: DateTime<Utc>,
        after_key: Option<&str>,
        _: usize,
    ) -> Result<Vec<PendingEvent>, StoreError> {
        let pending = self.pending.lock().unwrap();
        let due = pending.values().filter(|event| {
            event.recorded_at <= recorded_before && after_key.is_none_or(|it| *event.key > *it)
        });
        Ok(due.cloned().collect())
    }

    async fn clear(&self, published: Vec<(String, i64)>) -> Result<(), StoreError> {
        let mut pending = self.pending.lock().unwrap();
        for (key, newest) in published {
            pending.retain(|(it, revision), _| *it != key || *revision > newest);
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let pending = self.pending.lock().unwrap();
        Ok(Backlog {
            events: pending.len() as u64,
            oldest: pending.values().map(|event| event.recorded_at).min(),
        })
    }
}

/// Keeps what was published.
#[derive(Clone, Debug, Default)]
struct MemoryLog(Arc<Mutex<Vec<(String, String)>>>);

impl MemoryLog {
    fn published(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap().clone()
    }
}

impl Publisher for MemoryLog {
    fn send(
        &self,
        record: &Record<'_>,
    ) -> Result<BoxFuture<'static, Result<Position, PublishError>>, PublishError> {
        let body = String::from_utf8(record.payload.unwrap().to_vec()).unwrap();
        let mut records = self.0.lock().unwrap();
        records.push((record.key.to_owned(), body));
        let offset = records.len() as i64 - 1;
        let partition = 0;
        Ok(async move { Ok(Position { partition, offset }) }.boxed())
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn ready(&self) -> bool {
        true
    }

    fn failure(&self) -> Option<String> {
        None
    }

    fn largest_record(&self) -> usize {
        1_000_000
    }

    fn publisher(&self) -> Result<Arc<dyn Publisher>, LogError> {
        Ok(Arc::new(self.clone()))
    }

    async fn publish(&self, record: Record<'_>) -> Result<Position, PublishError> {
        self.send(&record)?.await
    }

    async fn topic(&self, _: &str) -> Result<TopicState, LogError> {
        Ok(TopicState::default())
    }

    fn tail(&self, _: &'static str, _: &Offsets, _: Attention) -> Result<Box<dyn Tail>, LogError> {
        Err(LogError::Unavailable("nothing is read".to_owned()))
    }

    fn join(&self, _: Membership) -> Result<Box<dyn Member>, LogError> {
        Err(LogError::Unavailable("nothing is read".to_owned()))
    }
}

/// An event of a key, stored long ago.
fn event(key: &str, revision: i64, body: &str) -> PendingEvent {
    PendingEvent {
        key: key.to_owned(),
        revision,
        recorded_at: DateTime::UNIX_EPOCH,
        event: CloudEvent {
            id: Uuid::now_v7(),
            source: "/test".to_owned(),
            kind: "Changed".to_owned(),
            subject: key.to_owned(),
            time: DateTime::UNIX_EPOCH,
            data_schema: "urn:test".to_owned(),
            traceparent: None,
            data: body.to_owned(),
        },
        companions: Vec::new(),
    }
}

/// A relay that runs until it is dropped.
fn start(outbox: &Arc<MemoryOutbox>, log: &MemoryLog) -> RelayHandle {
    let log: Arc<dyn Log> = Arc::new(log.clone());
    let outbox = Arc::clone(outbox) as Arc<dyn Outbox>;
    let settings = RelaySettings::default();
    relay::start(outbox, &log, TOPIC, &settings, &Shutdown::new()).unwrap()
}

fn named(published: &[(&str, &str)]) -> Vec<(String, String)> {
    let named = |(key, body): &(&str, &str)| ((*key).to_owned(), (*body).to_owned());
    published.iter().map(named).collect()
}

#[tokio::test(start_paused = true)]
async fn a_clear_that_a_failover_undid_is_done_again_and_nothing_is_published_twice() {
    let (outbox, log) = (Arc::new(MemoryOutbox::default()), MemoryLog::default());
    let events = [
        event("a", 1, "a1"),
        event("a", 2, "a2"),
        event("b", 1, "b1"),
    ];
    events.iter().for_each(|event| outbox.put(event));
    let _relay = start(&outbox, &log);
    outbox.emptied().await;
    // The new primary has lost the last clear.
    events[1..].iter().for_each(|event| outbox.put(event));
    outbox.emptied().await;
    let mut published = log.published();
    published.sort();
    assert_eq!(published, named(&[("a", "a1"), ("a", "a2"), ("b", "b1")]));
}

#[tokio::test(start_paused = true)]
async fn events_of_a_key_that_was_removed_and_made_anew_are_published() {
    let (outbox, log) = (Arc::new(MemoryOutbox::default()), MemoryLog::default());
    outbox.put(&event("a", 1, "first life"));
    outbox.put(&event("a", 2, "first life"));
    let _relay = start(&outbox, &log);
    outbox.emptied().await;
    outbox.put(&event("a", 1, "second life"));
    outbox.emptied().await;
    assert_eq!(
        log.published(),
        named(&[
            ("a", "first life"),
            ("a", "first life"),
            ("a", "second life")
        ])
    );
}

/// A clock was days ahead, and the instance did not publish what it recorded. The event does not wait until that time.
#[tokio::test(start_paused = true)]
async fn what_was_recorded_in_the_future_is_published_now() {
    let (outbox, log) = (Arc::new(MemoryOutbox::default()), MemoryLog::default());
    let ahead = |key: &str| PendingEvent {
        recorded_at: DateTime::from(std::time::SystemTime::now()) + chrono::TimeDelta::days(8),
        ..event(key, 1, key)
    };
    outbox.put(&ahead("before the start"));
    let _relay = start(&outbox, &log);
    outbox.emptied().await;
    // The event of another instance, which ended before it published it.
    outbox.put(&ahead("while it runs"));
    outbox.emptied().await;
    let published = [
        ("before the start", "before the start"),
        ("while it runs", "while it runs"),
    ];
    assert_eq!(log.published(), named(&published));
}

/// Nobody offers the events that an instance leaves behind. Until they count as left behind, there is nothing to do
/// about them.
#[tokio::test(start_paused = true)]
async fn while_nothing_is_pending_it_is_looked_for_what_was_left_behind_as_often_as_something_can_be()
 {
    let (outbox, log) = (Arc::new(MemoryOutbox::default()), MemoryLog::default());
    let relay = start(&outbox, &log);
    let looks = || outbox.looks.load(Ordering::Relaxed);
    sleep(Duration::from_secs(61)).await;
    assert!((12..=14).contains(&looks()), "{}", looks());
    // The reported backlog is current when something happens.
    let before = looks();
    relay.offer(vec![event("a", 1, "offered")]);
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(looks(), before + 1);
    // Another instance stores an event and ends. It is published no later than with a look every second.
    outbox.put(&PendingEvent {
        recorded_at: DateTime::from(std::time::SystemTime::now()),
        ..event("b", 1, "left behind")
    });
    sleep(Duration::from_secs(5)).await;
    let before = looks();
    sleep(Duration::from_secs(5)).await;
    assert!(looks() >= before + 4, "{} since {before}", looks());
}
