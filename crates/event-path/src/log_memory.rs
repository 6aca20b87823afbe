//! What a store remembers of the logs that it was made from, and the alarm when a log is not what it was.
//!
//! Kafka makes a topic anew without a word, and cuts what is older than its retention. A store that takes such a log for the whole
//! truth takes everything that is not in it for never having been. So each store remembers, of each partition that it reads, where
//! it began, the last message that was applied, and a fingerprint of that message. A log that begins later, ends earlier, or shows
//! another message at that place is another log: that is said, and nothing is concluded from it.
//! `docs/decisions/0015-identity-of-a-log.md` says why by content and not by Kafka's topic id.

mod partitions;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tandem_runtime::{
    backoff::Backoff,
    clock::{Clock, Instant},
    shutdown::Shutdown,
};

use crate::{
    checkpoint::Checkpoint,
    fault::{self, Fault},
    log::{Arrival, Attention, Ends, Log, LogError, Offsets, TopicState},
    projection::ProjectionStatus,
    store::{Registry, StoreError},
};

pub use partitions::{LogView, PartitionView};

/// How often what was applied is noted.
const NOTE: Duration = Duration::from_secs(1);
/// How often the ends of the logs are looked at while the service runs.
const LOOK: Duration = Duration::from_secs(10);
/// How often the messages that were applied last are looked at, too: a topic that was made anew may have outgrown the old one.
const LOOK_CLOSELY: Duration = Duration::from_secs(60);
/// How long a remembered message may take to be read.
const READ: Duration = Duration::from_secs(10);
/// The pauses while the log or the store is away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// What is remembered of one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remembered {
    /// The first offset that there was.
    pub begin: i64,
    /// The last message that was applied.
    pub last: Checkpoint,
    /// One that was applied before, and was found there when it was looked closely last. A topic that is made anew and outgrows the old one
    /// within moments is read on without a break: what is applied of it takes the place of `last`, and not of this.
    #[serde(default)]
    pub proven: Option<Checkpoint>,
    /// What told the topic from others of its name, where the client could tell; a copy of a log on another cluster is the same log.
    #[serde(default)]
    pub identity: Option<String>,
}

/// In what a log differs from what a store remembers of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// Which topic.
    pub topic: String,
    /// Which partition.
    pub partition: i32,
    /// In what, as a sentence.
    pub what: String,
}

/// Judges one partition by its ends and, if it still reaches so far, by the messages at the remembered places.
///
/// `found` says what is at the place of a message; `None` when there is none.
fn judge<'a>(
    remembered: &'a Remembered,
    (low, high): (i64, i64),
    found: impl Fn(&'a Checkpoint) -> Option<&'a Checkpoint>,
) -> Option<String> {
    let Remembered { begin, last, .. } = remembered;
    let proven = remembered.proven.as_ref();
    let furthest = proven.map_or(last.offset, |proven| proven.offset.max(last.offset));
    if high <= furthest {
        return Some(format!(
            "it ends before offset {high}, and the message at offset {furthest} was applied: the topic was made anew, or lost its end"
        ));
    }
    if low > *begin {
        return Some(format!(
            "it begins at offset {low}, and began at {begin}: what was before is gone"
        ));
    }
    let mut applied = [Some(last), proven].into_iter().flatten();
    let other = applied.find(|applied| found(applied) != Some(*applied))?;
    Some(format!(
        "the message at offset {} is not the one that was applied: it is another log",
        other.offset
    ))
}

/// Watches over the logs that a store is made from. Clones share it.
#[derive(Clone)]
pub struct LogWatch(Arc<Inner>);

struct Inner {
    log: Arc<dyn Log>,
    clock: Clock,
    registry: Arc<dyn Registry>,
    logs: Vec<(&'static str, ProjectionStatus)>,
    state: Mutex<State>,
    /// Looking, noting and accepting take turns: a look that began before the logs were accepted would tell its old alarms after it.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// `None` until the logs were looked at.
    alarms: Option<Vec<Alarm>>,
    known: HashMap<(&'static str, i32), Remembered>,
    /// What the projections had applied at the last note.
    noted: HashMap<(&'static str, i32), Checkpoint>,
    /// How often each log had been read again when it was looked at closely.
    read_again: HashMap<&'static str, u64>,
}

/// What was found at places of partitions; `None` where there is no message.
type Found = HashMap<(i32, i64), Option<Checkpoint>>;

/// What is at the place of a message that was applied. What was not looked at, or was removed since, says nothing: that it was removed is told
/// by where the log begins.
fn at<'a>(found: &'a Found, partition: i32, applied: &'a Checkpoint) -> Option<&'a Checkpoint> {
    match found.get(&(partition, applied.offset)) {
        Some(found) => found.as_ref(),
        None => Some(applied),
    }
}

fn name(topic: &str, partition: i32) -> String {
    format!("log/{topic}/{partition}")
}

/// What a store remembers of each partition of a topic, whichever instance noted it: a moment behind what is applied.
///
/// # Errors
/// When the store does not answer, or what it remembers cannot be read.
pub async fn remembered(
    registry: &dyn Registry,
    topic: &str,
) -> Result<BTreeMap<i32, Remembered>, StoreError> {
    let prefix = name(topic, 0);
    let prefix = &prefix[..prefix.len() - 1];
    let mut found = BTreeMap::new();
    for (name, text) in registry.recall_all(prefix).await? {
        let partition = name[prefix.len()..].parse();
        let remembered = serde_json::from_str(&text);
        if let (Ok(partition), Ok(remembered)) = (partition, remembered) {
            found.insert(partition, remembered);
        } else {
            return Err(StoreError::Corrupt(format!(
                "{name} cannot be read: {text}"
            )));
        }
    }
    Ok(found)
}

impl LogWatch {
    /// Watches over these topics, each read by the projection of this status; remembers in this registry.
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
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// Looks at the logs, then notes what is applied, in the background until the service stops.
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
                    // What was applied last is known at the next start.
                    let _ = watch.0.clock.timeout(NOTE, watch.note()).await;
                    return;
                }
            }
        });
    }

    /// In what the logs differ from what is remembered; `None` until they were looked at.
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

    /// Takes the logs as they are now for those that the store is made from: what was remembered is forgotten.
    ///
    /// # Errors
    /// When Kafka or the store is away.
    pub async fn accept(&self) -> Result<Vec<Alarm>, StoreError> {
        let _turn = self.0.turn.lock().await;
        let accepted = self.alarms().unwrap_or_default();
        for (topic, status) in &self.0.logs {
            let topic = *topic;
            let TopicState { identity, ends } = self.topic(topic).await?;
            let remembered = self.recall(topic).await?;
            // What was applied of the log as it was says nothing of this one.
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
        self.tell(Vec::new());
        Ok(accepted)
    }

    /// Whether any log was read again since it was looked at closely.
    fn is_read_again(&self) -> bool {
        let mut logs = self.0.logs.iter();
        logs.any(|(topic, status)| self.was_read_again(topic, status))
    }

    fn was_read_again(&self, topic: &str, status: &ProjectionStatus) -> bool {
        let seen = self.state().read_again.get(topic).copied();
        status.read_again() != seen.unwrap_or_default()
    }

    /// Looks at all logs. `closely`: also at the messages that were applied last.
    async fn look(&self, closely: bool) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
        let before = self.alarms().unwrap_or_default();
        let mut alarms = Vec::new();
        for (topic, status) in &self.0.logs {
            let topic = *topic;
            let read_again = status.read_again();
            // An alarm ends when the log is back, or when another instance was told to accept the log as it is.
            let closely = closely
                || before.iter().any(|alarm| alarm.topic == topic)
                || self.was_read_again(topic, status);
            let recalled = self.recall(topic).await?;
            let ends = match self.0.log.topic(topic).await {
                Ok(state) => state.ends,
                // It was there.
                Err(LogError::NoPartitions(_)) if !recalled.is_empty() => Ends::new(),
                Err(error) => return Err(StoreError::Away(error.to_string())),
            };
            let mut found = Found::default();
            if closely {
                for place in [
                    |it: &Remembered| Some(it.last.offset),
                    |it: &Remembered| it.proven.as_ref().map(|proven| proven.offset),
                ] {
                    let within = recalled.iter().filter_map(|(partition, remembered)| {
                        let (low, high) = ends.get(partition)?;
                        let at = place(remembered)?;
                        let is_new = !found.contains_key(&(*partition, at));
                        (is_new && (*low..*high).contains(&at)).then_some((*partition, at))
                    });
                    let within: Offsets = within.collect();
                    for (partition, checkpoint) in self.messages_at(topic, within.clone()).await? {
                        found.insert((partition, within[&partition]), checkpoint);
                    }
                }
            }
            if recalled.is_empty() && self.alarms().is_none() {
                tracing::info!(
                    topic,
                    "this store remembers nothing of the log yet; it remembers what it applies from now on"
                );
            }
            for (partition, mut remembered) in recalled {
                let Some(&end) = ends.get(&partition) else {
                    alarms.push(Alarm {
                        topic: topic.to_owned(),
                        partition,
                        what: "the partition is not there any more".to_owned(),
                    });
                    continue;
                };
                let judged = judge(&remembered, end, |applied| at(&found, partition, applied));
                match judged.filter(|_| !fault::is_on(Fault::OtherLogNotTold)) {
                    Some(what) => alarms.push(Alarm {
                        topic: topic.to_owned(),
                        partition,
                        what,
                    }),
                    None if closely && remembered.proven.as_ref() != Some(&remembered.last) => {
                        remembered.proven = Some(remembered.last.clone());
                        self.put(topic, partition, &remembered).await?;
                    }
                    None => {}
                }
                self.state().known.insert((topic, partition), remembered);
            }
            if closely {
                self.state().read_again.insert(topic, read_again);
            }
        }
        for alarm in alarms.iter().filter(|alarm| !before.contains(alarm)) {
            tracing::error!(
                topic = alarm.topic,
                partition = alarm.partition,
                "the log is not the one that this store was made from: {}; nothing is concluded from it",
                alarm.what
            );
        }
        self.tell(alarms);
        Ok(())
    }

    fn tell(&self, alarms: Vec<Alarm>) {
        for (topic, _) in &self.0.logs {
            let count = alarms.iter().filter(|alarm| alarm.topic == *topic).count();
            #[allow(clippy::cast_precision_loss)] // a gauge
            metrics::gauge!("log_alarms", "topic" => *topic).set(count as f64);
        }
        self.state().alarms = Some(alarms);
    }

    /// Notes what was applied since the last note, of logs without an alarm.
    async fn note(&self) -> Result<(), StoreError> {
        let _turn = self.0.turn.lock().await;
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
                // What came again is perhaps of another log: that is found out before it is remembered in the place of the old one.
                if was_read_again && known.is_some() {
                    continue;
                }
                let (begin, proven, identity) = match known {
                    // What was applied first is proof until it was looked closely.
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
        state.map_err(|error| StoreError::Away(error.to_string()))
    }

    /// The checkpoint of the message at an offset; `None` if there is none at that place, as where a transaction ended.
    async fn message_at(
        &self,
        topic: &'static str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Checkpoint>, StoreError> {
        let mut found = self
            .messages_at(topic, [(partition, offset)].into())
            .await?;
        Ok(found.remove(&partition).flatten())
    }

    /// The same for one offset in each of some partitions, all of which must be within the log.
    async fn messages_at(
        &self,
        topic: &'static str,
        at: Offsets,
    ) -> Result<HashMap<i32, Option<Checkpoint>>, StoreError> {
        let away = |error: LogError| StoreError::Away(error.to_string());
        let mut found = HashMap::with_capacity(at.len());
        if at.is_empty() {
            return Ok(found);
        }
        let tail = self.0.log.tail(topic, &at, Attention::Prompt);
        let tail = tail.map_err(away)?;
        while found.len() < at.len() {
            let arrival = self.0.clock.timeout(READ, tail.next()).await;
            let silent = |_| StoreError::Away(format!("{topic} was silent"));
            let (partition, message) = match arrival.map_err(silent)?.map_err(away)? {
                Arrival::Record(message) => (message.position.partition, Some(message)),
                Arrival::End(partition) => (partition, None),
            };
            // Partitions that were added are read too, and were not asked for.
            let Some(asked) = at.get(&partition) else {
                continue;
            };
            let message = message.filter(|message| message.position.offset == *asked);
            found
                .entry(partition)
                .or_insert_with(|| message.as_ref().map(Checkpoint::of));
        }
        Ok(found)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
