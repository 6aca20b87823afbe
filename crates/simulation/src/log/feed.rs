//! The state of one reader of a topic: its position in each partition, and the records that it has fetched but not
//! handed out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tandem_event_path::log::{Arrival, Offsets};
use tokio::sync::Notify;

use super::Cluster;
use crate::chance::draw;

/// The maximum number of records in one fetch of a partition.
const AT_ONCE: usize = 50;

/// The state of a reader. Clones share it.
#[derive(Clone)]
pub(super) struct Feed(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) cluster: Cluster,
    pub(super) topic: &'static str,
    patience: Duration,
    state: Mutex<State>,
    /// Notified when something was fetched, or the reader ended.
    pub(super) came: Notify,
}

#[derive(Default)]
pub(super) struct State {
    /// For each assigned partition, the next offset to fetch.
    pub(super) next: Offsets,
    /// For each partition, the end that was reported last.
    told: BTreeMap<i32, i64>,
    pub(super) fetched: VecDeque<Arrival>,
    pub(super) paused: BTreeSet<i32>,
    is_fetching: bool,
    /// Whether a fetch found nothing and waits for new records.
    is_parked: bool,
    /// Whether the reader is a member of a group.
    pub(super) is_member: bool,
    /// Whether the reader has failed and cannot continue.
    pub(super) is_broken: bool,
}

impl Feed {
    pub(super) fn new(cluster: &Cluster, topic: &'static str, patience: Duration) -> Self {
        let feed = Self(Arc::new(Inner {
            cluster: cluster.clone(),
            topic,
            patience,
            state: Mutex::default(),
            came: Notify::new(),
        }));
        cluster.knows(&feed);
        feed
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches from these offsets on. Records that were fetched before are dropped.
    pub(super) fn assign(&self, from: &Offsets) {
        let mut state = self.state();
        state.next.clone_from(from);
        state.told.clear();
        state.fetched.clear();
        drop(state);
        self.wake();
    }

    /// Also fetches these partitions.
    pub(super) fn add(&self, from: &Offsets) {
        self.state().next.extend(from);
        self.wake();
    }

    /// Stops fetching these partitions. Records that were fetched from them are dropped.
    pub(super) fn remove(&self, partitions: &BTreeSet<i32>) {
        let mut state = self.state();
        state.next.retain(|it, _| !partitions.contains(it));
        state.told.retain(|it, _| !partitions.contains(it));
        state.fetched.retain(|arrival| match arrival {
            Arrival::Record(message) => !partitions.contains(&message.position.partition),
            Arrival::End(partition) => !partitions.contains(partition),
        });
    }

    /// The next fetched record, if there is one. Records of paused partitions are not handed out.
    pub(super) fn take(&self) -> Option<Arrival> {
        let mut state = self.state();
        let place = state.fetched.iter().position(|arrival| {
            let partition = match arrival {
                Arrival::Record(message) => message.position.partition,
                Arrival::End(partition) => *partition,
            };
            !state.paused.contains(&partition)
        })?;
        state.fetched.remove(place)
    }

    /// Begins a fetch, unless one is in progress or waits for new records.
    pub(super) fn fetch(&self) {
        let mut state = self.state();
        if state.is_fetching {
            return;
        }
        state.is_fetching = true;
        drop(state);
        self.fetch_later(Duration::ZERO);
    }

    fn fetch_later(&self, patience: Duration) {
        let delay = draw(|chance| chance.between(1, 4));
        let feed = self.clone();
        let world = self.0.cluster.world();
        world.later(patience + Duration::from_millis(delay), move || {
            feed.fetched()
        });
    }

    /// Something happened to the topic. A fetch that found nothing tries again.
    pub(super) fn wake(&self) {
        let mut state = self.state();
        if !std::mem::take(&mut state.is_parked) {
            return;
        }
        drop(state);
        self.fetch_later(self.0.patience);
    }

    fn fetched(&self) {
        let cluster = self.0.cluster.clone();
        let mut state = self.state();
        let mut found = Vec::new();
        cluster.read(self.0.topic, |partitions, now| {
            let State { next, told, .. } = &mut *state;
            for (number, next) in next.iter_mut() {
                let index = usize::try_from(*number).unwrap_or_default();
                let Some(partition) = partitions.get(index) else {
                    continue;
                };
                if partition.away_until > now {
                    continue;
                }
                if *next < partition.low() || *next > partition.high() {
                    // The behaviour of `auto.offset.reset=earliest`.
                    *next = partition.low();
                }
                let (records, behind) = partition.read(*next, AT_ONCE);
                *next = behind;
                found.extend(records.into_iter().map(Arrival::Record));
                let stable = partition.stable();
                if *next >= stable && told.insert(*number, stable) != Some(stable) {
                    found.push(Arrival::End(*number));
                }
            }
        });
        let is_empty = found.is_empty();
        state.fetched.extend(found);
        state.is_parked = is_empty && !state.is_broken;
        state.is_fetching = state.is_parked;
        drop(state);
        if !is_empty {
            self.0.came.notify_one();
        }
    }

    /// Makes the reader fail. Whoever reads from it gets an error.
    pub(super) fn breaks(&self) {
        let mut state = self.state();
        state.is_broken = true;
        state.is_parked = false;
        drop(state);
        self.0.came.notify_one();
    }
}
