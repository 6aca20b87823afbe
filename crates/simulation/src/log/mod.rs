//! The simulated log. It behaves as badly as Kafka can, on purpose and from a seed.

mod feed;
pub mod foreign;
mod group;
mod member;
mod publisher;
mod reached;
mod readable;
mod tail;
pub mod topic;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use tandem_event_path::log::{Attention, LogError, Offsets};
use tandem_model::message::{Message, Position};

use crate::{
    chance::draw,
    faults::{Fault, Faults},
    world::World,
};
use feed::Feed;
use group::Group;
use topic::{Partition, Topic};

pub use reached::SimLog;

/// The maximum size of a record in bytes.
pub const LARGEST_RECORD: usize = 1_000_000;

/// The probabilities of faults on the way, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Odds {
    /// A record is in the log, but its publisher gets no acknowledgement.
    pub lost_acknowledgement: u64,
    /// A record does not arrive, and its publisher gets an error after a while.
    pub lost_record: u64,
    /// A record arrives long after its publisher gave up.
    pub late_record: u64,
    /// A record is in the log twice.
    pub duplicate: u64,
    /// A query gets no answer.
    pub lost_question: u64,
    /// A forged event names another system, not ours.
    pub other_system: u64,
}

/// The brokers and their data. Clones share it.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    world: World,
    faults: Faults,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<String, Topic>,
    groups: BTreeMap<String, Group>,
    feeds: Vec<Weak<feed::Inner>>,
    odds: Odds,
    /// Until when no broker answers, in nanoseconds since the world began.
    away_until: u64,
    /// Every record that readers have ever been able to see, with the time of its arrival, in order of arrival. It
    /// includes records that were removed since.
    ledger: Vec<(u64, Message)>,
    /// For each key of a compacted topic, the time since when it can be read.
    readable: BTreeMap<String, u64>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Cluster")
    }
}

impl Cluster {
    /// Creates brokers without topics.
    #[must_use]
    pub fn new(world: &World, faults: &Faults) -> Self {
        Self(Arc::new(Shared {
            world: world.clone(),
            faults: faults.clone(),
            state: Mutex::default(),
        }))
    }

    fn world(&self) -> &World {
        &self.0.world
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates a topic. An existing topic is replaced by an empty one.
    pub fn make(&self, topic: &str, is_compacted: bool, partitions: usize) {
        let identity = self.world().number();
        let made = Topic::new(identity, is_compacted, partitions);
        self.state().topics.insert(topic.to_owned(), made);
        self.changed(topic);
    }

    /// Deletes a topic and creates it again, empty, with the same number of partitions. Kafka then usually forgets the
    /// committed offsets of groups, and members may commit offsets once more that they read in the old topic.
    pub fn remake(&self, topic: &str) {
        let identity = self.world().number();
        self.world().note(|| format!("log {topic} is made anew"));
        let forgets = draw(|chance| chance.happens(800));
        let mut state = self.state();
        let State { topics, groups, .. } = &mut *state;
        if let Some(found) = topics.get_mut(topic) {
            let (is_compacted, count) = (found.is_compacted, found.partitions.len());
            *found = Topic::new(identity, is_compacted, count);
        }
        if forgets {
            groups.values_mut().for_each(|group| group.forget(topic));
        }
        drop(state);
        self.changed(topic);
    }

    /// Sets the probabilities of faults from now on.
    pub fn set_odds(&self, odds: Odds) {
        self.state().odds = odds;
    }

    /// Makes all brokers unavailable for a time.
    pub fn go_away(&self, time: Duration) {
        let until = self.world().elapsed() + nanoseconds(time);
        let mut state = self.state();
        state.away_until = until;
        for topic in state.topics.values_mut() {
            for partition in &mut topic.partitions {
                partition.away_until = partition.away_until.max(until);
            }
        }
        drop(state);
        self.back_after(time);
    }

    /// Makes the leader of a partition unavailable for a time.
    pub fn lose_leader(&self, topic: &str, partition: usize, time: Duration) {
        let until = self.world().elapsed() + nanoseconds(time);
        if let Some(topic) = self.state().topics.get_mut(topic)
            && let Some(partition) = topic.partitions.get_mut(partition)
        {
            partition.away_until = partition.away_until.max(until);
        }
        self.back_after(time);
    }

    /// Makes all brokers and leaders available again.
    pub fn come_back(&self) {
        let mut state = self.state();
        state.away_until = 0;
        for topic in state.topics.values_mut() {
            for partition in &mut topic.partitions {
                partition.away_until = 0;
            }
        }
        drop(state);
        self.back_after(Duration::ZERO);
    }

    fn back_after(&self, time: Duration) {
        let cluster = self.clone();
        self.world()
            .later(time + Duration::from_millis(1), move || {
                cluster.note_readable();
                let feeds = cluster.feeds(|_| true);
                feeds.iter().for_each(Feed::wake);
            });
    }

    /// Adds partitions to a topic. Readers by assignment and groups notice within some seconds.
    pub fn add_partitions(&self, topic: &'static str, count: usize) {
        if let Some(topic) = self.state().topics.get_mut(topic) {
            let more = topic.partitions.len() + count;
            topic.partitions.resize_with(more, Partition::default);
        }
        for feed in self.feeds(|feed| feed.topic == topic) {
            self.notice_later(feed);
        }
        let delay = draw(|chance| chance.between(1_000, 6_000));
        let cluster = self.clone();
        self.world().later(Duration::from_millis(delay), move || {
            cluster.rebalance_all(topic);
        });
    }

    /// Within some seconds, a reader by assignment notices partitions that it does not read, and reads them from their
    /// beginning.
    fn notice_later(&self, feed: Feed) {
        if self.is_member(&feed) || self.has(Fault::PartitionNotNoticed) {
            return;
        }
        let cluster = self.clone();
        let delay = draw(|chance| chance.between(1_000, 6_000));
        self.world().later(Duration::from_millis(delay), move || {
            let known: BTreeSet<i32> = feed.state().next.keys().copied().collect();
            let all = cluster.lows(feed.0.topic);
            let added = all.into_iter().filter(|(it, _)| !known.contains(it));
            feed.add(&added.collect());
        });
    }

    /// Changes a topic, and lets its readers fetch again.
    pub fn change<T>(&self, topic: &str, change: impl FnOnce(&mut Topic) -> T) -> Option<T> {
        let changed = self.state().topics.get_mut(topic).map(change);
        self.changed(topic);
        changed
    }

    /// Records messages as visible to readers.
    pub fn saw(&self, seen: Vec<Message>) {
        let now = self.world().elapsed();
        let seen = seen.into_iter().map(|message| (now, message));
        self.state().ledger.extend(seen);
    }

    /// Every record that readers have ever been able to see.
    #[must_use]
    pub fn ledger(&self) -> Vec<(u64, Message)> {
        self.state().ledger.clone()
    }

    /// Whether a transaction is open in any topic.
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        let state = self.state();
        let partitions = state.topics.values().flat_map(|it| &it.partitions);
        partitions.into_iter().any(Partition::is_held_back)
    }

    /// The number of partitions of a topic.
    #[must_use]
    pub fn partitions(&self, topic: &str) -> usize {
        let state = self.state();
        state.topics.get(topic).map_or(0, |it| it.partitions.len())
    }

    /// Makes a reader by assignment fail, as a client does that cannot continue.
    pub fn break_a_tail(&self) {
        let feeds = self.feeds(|_| true);
        let tails: Vec<&Feed> = feeds.iter().filter(|feed| !self.is_member(feed)).collect();
        if let Some(feed) = draw(|chance| chance.pick(&tails).copied()) {
            feed.breaks();
        }
    }

    /// Drops everything. Members hold references to the cluster that holds their group, so this breaks the cycle.
    pub fn end(&self) {
        let dropped = std::mem::take(&mut *self.state());
        drop(dropped);
    }

    fn append(&self, topic: &str, record: Message) -> Option<Position> {
        let mut state = self.state();
        let State { topics, ledger, .. } = &mut *state;
        let found = topics.get_mut(topic)?;
        let index = match &record.key {
            Some(key) => found.partition_of(key),
            None => 0,
        };
        let number = i32::try_from(index).unwrap_or_default();
        let partition = found.partitions.get_mut(index)?;
        let position = Position {
            partition: number,
            offset: partition.high(),
        };
        let is_hidden = partition.is_held_back();
        self.world().note(|| {
            let revision = record
                .payload
                .as_deref()
                .map_or("tombstone".into(), summary);
            let key = record.key.as_deref().unwrap_or("-");
            format!("log {topic}/{number}@{} {key} {revision}", position.offset)
        });
        let now = self.world().elapsed();
        let seen = Message {
            position,
            ..record.clone()
        };
        ledger.push((now, seen));
        partition.append(number, None, Some(record));
        drop(state);
        if !is_hidden {
            self.changed(topic);
        }
        Some(position)
    }

    fn changed(&self, topic: &str) {
        self.note_readable();
        let feeds = self.feeds(|feed| feed.topic == topic);
        feeds.iter().for_each(Feed::wake);
    }

    fn feeds(&self, which: impl Fn(&feed::Inner) -> bool) -> Vec<Feed> {
        let mut state = self.state();
        state.feeds.retain(|feed| feed.strong_count() > 0);
        let feeds = state.feeds.iter().filter_map(Weak::upgrade);
        feeds.filter(|feed| which(feed)).map(Feed).collect()
    }

    fn knows(&self, feed: &Feed) {
        self.state().feeds.push(Arc::downgrade(&feed.0));
    }

    fn read(&self, topic: &str, read: impl FnOnce(&[Partition], u64)) {
        let now = self.world().elapsed();
        if let Some(topic) = self.state().topics.get(topic) {
            read(&topic.partitions, now);
        }
    }

    /// For each partition of a topic, the first offset that is kept.
    fn lows(&self, topic: &str) -> Offsets {
        let state = self.state();
        let partitions = state.topics.get(topic).into_iter();
        let partitions = partitions.flat_map(|topic| &topic.partitions);
        (0..).zip(partitions.map(Partition::low)).collect()
    }

    fn has(&self, fault: Fault) -> bool {
        self.0.faults.has(fault)
    }

    fn is_away(&self) -> bool {
        self.world().elapsed() < self.state().away_until
    }

    fn odds(&self) -> Odds {
        self.state().odds
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The text for a body in the trace.
fn summary(body: &[u8]) -> String {
    let told: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let part = |name: &str| told.as_ref().and_then(|told| told.get(name)).cloned();
    match (part("revision"), part("changeType")) {
        (Some(revision), Some(kind)) => format!("{revision} {kind}"),
        _ => format!("{} bytes", body.len()),
    }
}

fn away() -> LogError {
    LogError::Unavailable("no broker answers".to_owned())
}

fn patience_of(attention: Attention) -> Duration {
    match attention {
        Attention::Prompt => Duration::ZERO,
        Attention::Patient(patience) => patience,
    }
}
