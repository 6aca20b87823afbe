//! What a store remembers of the logs that it was made from, and the alarm when a log differs from it.
//!
//! Kafka gives no notice when a topic is created again, or when retention cuts it. A store that takes such a log for
//! complete would conclude that everything missing from it never existed. So each store remembers three things of each
//! partition that it reads: where the partition began, the last message that was applied, and a fingerprint of that
//! message. A log that begins later, ends earlier, or has another message at that offset is another log. The service
//! reports that and concludes nothing from such a log. `docs/decisions/0015-identity-of-a-log.md` says why this uses
//! content and not Kafka's topic id.

mod comparison;
mod judging;
mod message_at;
mod partitions;
mod remembered_partition;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    shutdown::Shutdown,
};
use tokio::sync::watch;

use crate::{
    checkpoint::Checkpoint,
    data_keys::KeyRing,
    log::{Log, TopicState},
    projection::ProjectionStatus,
    store::{Registry, StoreError},
};

pub use partitions::{LogView, PartitionView};
use remembered_partition::name;
pub use remembered_partition::{Remembered, remembered};

/// How often progress is noted.
const NOTE: Duration = Duration::from_secs(1);
/// How often the ends of the logs are checked while the service runs.
const LOOK: Duration = Duration::from_secs(10);
/// How often the last applied messages are checked too. A topic that was created again may have outgrown the old one.
const LOOK_CLOSELY: Duration = Duration::from_secs(60);
/// The pauses while the log or the store is unavailable.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// How a log differs from what a store remembers of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The difference, as a sentence.
    pub what: String,
}

/// Watches the logs that a store is made from. Clones share the state.
#[derive(Clone)]
pub struct LogWatch(Arc<Inner>);

struct Inner {
    log: Arc<dyn Log>,
    clock: Clock,
    registry: Arc<dyn Registry>,
    logs: Vec<(&'static str, ProjectionStatus)>,
    keys: OnceLock<KeyRing>,
    state: Mutex<State>,
    /// Looking, noting and accepting take turns. Otherwise a look that began before an accept could report old alarms
    /// after it.
    turn: tokio::sync::Mutex<()>,
    /// Whether progress must not be noted yet.
    is_held: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    /// `None` until the first look at the logs.
    alarms: Option<Vec<Alarm>>,
    known: HashMap<(&'static str, i32), Remembered>,
    /// The checkpoints of the projections at the last note.
    noted: HashMap<(&'static str, i32), Checkpoint>,
    /// For each log, the projection's count of re-reads at the last close look.
    read_again: HashMap<&'static str, u64>,
}

impl LogWatch {
    /// Watches these topics. Each is read by the projection with the given status. The registry holds what is
    /// remembered.
    #[must_use]
    pub fn new(
        log: &Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        logs: Vec<(&'static str, ProjectionStatus)>,
        clock: &Clock,
    ) -> Self {
        Self(Arc::new(Inner {
            log: Arc::clone(log),
            clock: clock.clone(),
            registry,
            logs,
            keys: OnceLock::new(),
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            is_held: watch::channel(false).0,
        }))
    }

    /// The same watch, which also checks that the topic of keys is still the one that was read. No store is made from
    /// that topic: each start reads all of it, and what the store remembers of it says only what is read first.
    #[must_use]
    pub fn with_keys(self, keys: &KeyRing) -> Self {
        self.0.keys.get_or_init(|| keys.clone());
        self
    }

    /// Looks at the logs and notes progress in the background, until the service stops.
    pub fn start(&self, shutdown: &Shutdown) {
        let (watch, stop) = (self.clone(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                _ = watch.0.log.ready() => {}
            }
            let mut pauses = BACKOFF.pauses(&watch.0.clock);
            let mut looked: Option<Instant> = None;
            let mut looked_closely: Option<Instant> = None;
            loop {
                let is_due = |last: Option<Instant>, every| {
                    last.is_none_or(|last| watch.0.clock.since(last) >= every)
                };
                let closely = is_due(looked_closely, LOOK_CLOSELY);
                let worked = if closely || is_due(looked, LOOK) || watch.is_read_again() {
                    watch.look(closely).await.map(|()| {
                        looked = Some(watch.0.clock.instant());
                        if closely {
                            looked_closely = looked;
                        }
                    })
                } else {
                    watch.note().await
                };
                let wait = match worked {
                    Ok(()) => {
                        pauses.reset();
                        NOTE
                    }
                    Err(error) => {
                        let pause = pauses.next_pause();
                        tracing::debug!(%error, ?pause, "what is known of the logs cannot be told now; trying again");
                        pause
                    }
                };
                if !stop.sleep(wait).await {
                    // Note the last progress for the next start.
                    let _ = watch.0.clock.timeout(NOTE, watch.note()).await;
                    return;
                }
            }
        });
    }

    /// Stops noting until [`Self::release`]. A store that is behind reads on from the remembered positions. In the
    /// meantime the projections apply messages far behind those, which must not replace them.
    pub(crate) fn hold(&self) {
        self.0.is_held.send_replace(true);
    }

    /// Notes progress again.
    pub(crate) fn release(&self) {
        self.0.is_held.send_replace(false);
    }

    /// Waits until the store has everything that the log had when the service started, or until it is clear that this
    /// cannot be known.
    pub async fn caught_up(&self) {
        let mut is_held = self.0.is_held.subscribe();
        // The sender lives as long as this watch.
        drop(is_held.wait_for(|is_held| !*is_held).await);
    }

    /// Looks at all logs now, and at the messages that were applied last.
    ///
    /// # Errors
    /// When Kafka or the store is unavailable.
    pub(crate) async fn look_closely(&self) -> Result<(), StoreError> {
        self.look(true).await
    }

    /// How the logs differ from what is remembered. `None` until the first look.
    #[must_use]
    pub fn alarms(&self) -> Option<Vec<Alarm>> {
        self.state().alarms.clone()
    }

    /// Whether a log was looked at and is the one that the store was made from.
    #[must_use]
    pub fn trusts(&self, topic: &str) -> bool {
        let state = self.state();
        let alarms = state.alarms.as_ref();
        alarms.is_some_and(|alarms| alarms.iter().all(|alarm| alarm.topic != topic))
    }

    /// Accepts the logs in their present state as those that the store is made from. Forgets what was remembered.
    ///
    /// # Errors
    /// When Kafka or the store is unavailable.
    pub async fn accept(&self) -> Result<Vec<Alarm>, StoreError> {
        let _turn = self.0.turn.lock().await;
        let accepted = self.alarms().unwrap_or_default();
        for (topic, status) in &self.0.logs {
            let topic = *topic;
            let TopicState { identity, ends } = self.topic(topic).await?;
            let remembered = self.recall(topic).await?;
            // These checkpoints belong to the old log and say nothing about this one. As they count as noted, `note`
            // skips them.
            for (partition, checkpoint) in status.checkpoints() {
                self.state().noted.insert((topic, partition), checkpoint);
            }
            for (partition, (low, high)) in ends {
                if !remembered.contains_key(&partition) {
                    continue;
                }
                let last = if high > low {
                    self.message_at(topic, partition, high - 1).await?
                } else {
                    None
                };
                match last {
                    Some(last) => {
                        let now = Remembered {
                            begin: low,
                            proven: Some(last.clone()),
                            last,
                            identity: identity.clone(),
                        };
                        self.put(topic, partition, &now).await?;
                    }
                    None => self.0.registry.forget(&name(topic, partition)).await?,
                }
            }
            for partition in remembered.keys() {
                self.state().known.remove(&(topic, *partition));
            }
        }
        if let Some(keys) = self.0.keys.get() {
            keys.accept();
        }
        self.set_alarms(Vec::new());
        Ok(accepted)
    }

    fn set_alarms(&self, alarms: Vec<Alarm>) {
        let logs = self.0.logs.iter().map(|(topic, _)| *topic);
        for topic in logs.chain(self.0.keys.get().map(KeyRing::topic)) {
            let count = alarms.iter().filter(|alarm| alarm.topic == topic).count();
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("log_alarms", "topic" => topic).set(count as f64);
        }
        self.state().alarms = Some(alarms);
    }

    /// Notes progress since the last note, for logs without an alarm.
    async fn note(&self) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        if *self.0.is_held.borrow() {
            return Ok(());
        }
        for (topic, status) in &self.0.logs {
            if !self.trusts(topic) {
                continue;
            }
            let checkpoints = status.checkpoints();
            let was_read_again = self.was_read_again(topic, status);
            for (partition, last) in checkpoints {
                if self.state().noted.get(&(*topic, partition)) == Some(&last) {
                    continue;
                }
                let known = self.state().known.get(&(*topic, partition)).cloned();
                // A message that was read again may belong to another log. A close look must find that out before the
                // message replaces the old one.
                if was_read_again && known.is_some() {
                    continue;
                }
                let (begin, proven, identity) = match known {
                    // The first applied message is the proof until the next close look.
                    Some(known) => (
                        known.begin,
                        known.proven.or(Some(known.last)),
                        known.identity,
                    ),
                    None => {
                        let TopicState { identity, ends } = self.topic(topic).await?;
                        let low = ends.get(&partition).map_or(0, |(low, _)| *low);
                        (low, None, identity)
                    }
                };
                let now = Remembered {
                    begin,
                    last: last.clone(),
                    proven,
                    identity,
                };
                self.put(topic, partition, &now).await?;
                let mut state = self.state();
                state.known.insert((*topic, partition), now);
                state.noted.insert((*topic, partition), last);
            }
            let known = |state: &State| state.known.keys().filter(|(of, _)| of == topic).count();
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("log_partitions_remembered", "topic" => *topic)
                .set(known(&self.state()) as f64);
        }
        Ok(())
    }

    async fn put(
        &self,
        topic: &str,
        partition: i32,
        remembered: &Remembered,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(remembered)
            .map_err(|error| StoreError::Corrupt(error.to_string()))?;
        self.0.registry.note(&name(topic, partition), &text).await
    }

    async fn recall(&self, topic: &str) -> Result<BTreeMap<i32, Remembered>, StoreError> {
        remembered(self.0.registry.as_ref(), topic).await
    }

    async fn topic(&self, topic: &str) -> Result<TopicState, StoreError> {
        let state = self.0.log.topic(topic).await;
        state.map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
