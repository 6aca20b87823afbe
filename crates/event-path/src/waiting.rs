//! Events that wait for their data key: kept in the store until the key comes, each by itself. Nothing is concluded from a key
//! that is not there, and nobody else is held up.
//!
//! They are kept where dead letters are, under a name of their own, so that a restart forgets none; they are not dead letters, and
//! are not copied to a dead letter topic. When the topic of keys shows the key, or proves that there is none any more, they are
//! taken once more by themselves.
//!
//! Most wait for a moment alone: the two topics are read by two readers, and the event was read before its key. So the log warns of an
//! event that has waited for 10 s, once in the life of a process; health and the metric show it from its first moment.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use tandem_model::message::{Message, Position};
use tandem_runtime::{
    clock::{Clock, Instant},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use crate::{
    data_keys::{KeyRing, Unopened},
    store::{DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId, StoreError},
};

/// Ends the name under which a reader's waiting events are kept.
const SUFFIX: &str = ".waiting";
/// The header that a waiting event is kept with: whose key it takes.
const WAITS_FOR: &str = "tandem-waits-for";
/// How often waiting events are looked at though no key has come: another instance may have set some aside or taken some.
const LOOK: Duration = Duration::from_secs(5);
/// How long an event has waited when the log warns of it.
const LONG: TimeDelta = TimeDelta::seconds(10);
/// Keys that come within this time are looked at together.
const GATHER: Duration = Duration::from_millis(100);
/// Events taken at once.
const SOME: usize = 500;

/// The name under which a reader's waiting events are kept in the store of dead letters.
#[must_use]
pub fn kept_under(reader: &str) -> String {
    format!("{reader}{SUFFIX}")
}

/// Whether a name in the store of dead letters is one of waiting events.
#[must_use]
pub fn is_waiting(consumer: &str) -> bool {
    consumer.ends_with(SUFFIX)
}

/// An event that waits, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// Who waits for it: the projection or the aggregates that are made of these events.
    pub reader: String,
    /// Whose data key it takes.
    pub subject: String,
    /// The message's key: the id of the aggregate.
    pub key: String,
    /// Where it is in the log.
    pub topic: String,
    /// Where it is in the log.
    pub partition: i32,
    /// Where it is in the log.
    pub offset: i64,
    /// Since when.
    pub since: DateTime<Utc>,
    /// Why it does not open.
    pub reason: String,
}

/// Takes events that have waited once more.
#[async_trait]
pub trait Takes: Send + Sync + 'static {
    /// Takes these messages, in order of position. Answers, for each, why it still does not open; `None` for those that are taken.
    ///
    /// # Errors
    /// When the store is away; some may then be taken, and taking them again does no harm.
    async fn take(&self, messages: &[Message]) -> Result<Vec<Option<Unopened>>, StoreError>;
}

/// The waiting events of one reader. Clones share them.
#[derive(Clone)]
pub struct Waiting(Arc<Inner>);

struct Inner {
    clock: Clock,
    reader: &'static str,
    consumer: String,
    letters: Arc<dyn DeadLetterStore>,
    known: Mutex<Waits>,
    changed: Notify,
}

/// What waits, without the messages.
#[derive(Debug, Default)]
struct Waits {
    waits: BTreeMap<(String, Position), Wait>,
    /// How many wait of each aggregate.
    keys: HashMap<String, usize>,
    /// Those that the log has warned of.
    told: BTreeSet<(String, Position)>,
}

impl Waits {
    fn add(&mut self, place: (String, Position), wait: Wait) {
        let key = wait.key.clone();
        if let Entry::Vacant(vacant) = self.waits.entry(place) {
            vacant.insert(wait);
            *self.keys.entry(key).or_default() += 1;
        }
    }

    /// What has waited long at this time and was not told before.
    fn long(&mut self, now: DateTime<Utc>) -> Vec<((String, Position), Wait)> {
        self.told.retain(|place| self.waits.contains_key(place));
        let long: Vec<_> = self
            .waits
            .iter()
            .filter(|(place, wait)| {
                now.signed_duration_since(wait.since) >= LONG && !self.told.contains(*place)
            })
            .map(|(place, wait)| (place.clone(), wait.clone()))
            .collect();
        self.told
            .extend(long.iter().map(|(place, _)| place.clone()));
        long
    }

    fn remove(&mut self, place: &(String, Position)) {
        let Some(wait) = self.waits.remove(place) else {
            return;
        };
        if let Some(count) = self.keys.get_mut(&wait.key) {
            *count -= 1;
            if *count == 0 {
                self.keys.remove(&wait.key);
            }
        }
    }
}

/// Whose key an event takes, of which aggregate it is, since when it waits, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wait {
    subject: String,
    key: String,
    since: DateTime<Utc>,
    reason: String,
}

impl Waiting {
    /// The waiting events of this reader, in this store.
    #[must_use]
    pub fn of(reader: &'static str, letters: Arc<dyn DeadLetterStore>, clock: &Clock) -> Self {
        Self(Arc::new(Inner {
            clock: clock.clone(),
            reader,
            consumer: kept_under(reader),
            letters,
            known: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    /// Keeps messages until their keys come. Keeping one again does no harm.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn keep(&self, messages: Vec<(Message, Unopened)>) -> Result<(), StoreError> {
        if messages.is_empty() {
            return Ok(());
        }
        let since = DateTime::<Utc>::from(self.0.clock.now());
        let mut kept = Vec::with_capacity(messages.len());
        let letters = messages
            .into_iter()
            .map(|(message, unopened)| {
                let key = message.key.unwrap_or_default();
                tracing::debug!(
                    reader = self.0.reader,
                    topic = message.topic,
                    partition = message.position.partition,
                    offset = message.position.offset,
                    key,
                    subject = unopened.subject,
                    reason = unopened.reason,
                    "an event waits for its data key"
                );
                let wait = Wait {
                    subject: unopened.subject.clone(),
                    key: key.clone(),
                    since,
                    reason: unopened.reason.clone(),
                };
                kept.push(((message.topic.clone(), message.position), wait));
                let mut headers = message.headers;
                headers.push((WAITS_FOR.to_owned(), unopened.subject.into_bytes()));
                DeadLetter {
                    consumer: self.0.consumer.clone(),
                    topic: message.topic,
                    partition: message.position.partition,
                    offset: message.position.offset,
                    key,
                    reason: unopened.reason,
                    parked_at: since,
                    headers,
                    // Whole: what is cut could never be opened.
                    payload: message.payload,
                    is_cut: false,
                }
            })
            .collect();
        self.0.letters.park(letters).await?;
        for (place, wait) in kept {
            self.known().add(place, wait);
        }
        self.tell();
        // The key may have come in between.
        self.0.changed.notify_one();
        Ok(())
    }

    /// Whether an event of this aggregate waits: then what is stored of it is not the newest.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        self.known().keys.contains_key(key)
    }

    /// The subjects whose keys are waited for, in order.
    #[must_use]
    pub fn subjects(&self) -> BTreeSet<String> {
        let known = self.known();
        let waits = known.waits.values();
        waits.map(|wait| wait.subject.clone()).collect()
    }

    /// Since when the oldest of them waits.
    #[must_use]
    pub fn since(&self) -> Option<DateTime<Utc>> {
        self.known().waits.values().map(|wait| wait.since).min()
    }

    /// At most `limit` waiting events, in order of topic and position.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn list(&self, limit: usize) -> Result<Vec<WaitingView>, StoreError> {
        let letters = self.page(None, limit).await?;
        let view = |(letter, subject): (DeadLetter, String)| WaitingView {
            reader: self.0.reader.to_owned(),
            subject,
            key: letter.key,
            topic: letter.topic,
            partition: letter.partition,
            offset: letter.offset,
            since: letter.parked_at,
            reason: letter.reason,
        };
        Ok(letters.into_iter().map(view).collect())
    }

    /// Reads what waits from the store.
    ///
    /// # Errors
    /// When the store is away.
    pub async fn load(&self) -> Result<(), StoreError> {
        let mut waits = Waits::default();
        let mut after = None;
        loop {
            let page = self.page(after.as_ref(), SOME).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.id());
            for (letter, subject) in page {
                let wait = Wait {
                    subject,
                    since: letter.parked_at,
                    key: letter.key.clone(),
                    reason: letter.reason.clone(),
                };
                waits.add(place(&letter), wait);
            }
        }
        let mut known = self.known();
        waits.told = std::mem::take(&mut known.told);
        *known = waits;
        drop(known);
        self.tell();
        Ok(())
    }

    /// Warns of what has waited long.
    fn warn(&self) {
        let now = DateTime::<Utc>::from(self.0.clock.now());
        for ((topic, position), wait) in self.known().long(now) {
            tracing::warn!(
                reader = self.0.reader,
                topic,
                partition = position.partition,
                offset = position.offset,
                key = wait.key,
                subject = wait.subject,
                reason = wait.reason,
                since = %wait.since,
                "an event waits for its data key"
            );
        }
    }

    /// Takes waiting events once more whenever keys come, in the background until the service stops.
    pub fn release(&self, takes: Arc<dyn Takes>, keys: &KeyRing, shutdown: &Shutdown) {
        let (waiting, keys, stop) = (self.clone(), keys.clone(), shutdown.clone());
        shutdown.spawn(async move {
            let mut steps = keys.steps();
            let mut looked: Option<Instant> = None;
            loop {
                let is_due = looked.is_none_or(|looked| waiting.0.clock.since(looked) >= LOOK);
                if is_due || keys.shows_any(waiting.subjects().iter()) {
                    looked = Some(waiting.0.clock.instant());
                    if let Err(error) = waiting.take(takes.as_ref()).await {
                        tracing::warn!(reader = waiting.0.reader, %error, "waiting events cannot be taken now; trying again");
                    }
                }
                waiting.warn();
                tokio::select! {
                    biased;
                    () = stop.requested() => return,
                    _ = steps.changed(), if !waiting.known().waits.is_empty() => {}
                    () = waiting.0.changed.notified() => {}
                    () = waiting.0.clock.sleep(LOOK) => {}
                }
                if !stop.sleep(GATHER).await {
                    return;
                }
                steps.borrow_and_update();
            }
        });
    }

    /// Takes all that can be taken now.
    async fn take(&self, takes: &dyn Takes) -> Result<(), StoreError> {
        self.load().await?;
        let mut after = None;
        loop {
            let some = self.page(after.as_ref(), SOME).await?;
            let Some((last, _)) = some.last() else { break };
            after = Some(last.id());
            let messages: Vec<Message> = some.iter().map(|(letter, _)| message(letter)).collect();
            let taken = takes.take(&messages).await?;
            for ((letter, subject), unopened) in some.iter().zip(taken) {
                if unopened.is_some() {
                    continue;
                }
                self.0.letters.unpark(&letter.id()).await?;
                self.known().remove(&place(letter));
                tracing::info!(
                    reader = self.0.reader,
                    topic = letter.topic,
                    partition = letter.partition,
                    offset = letter.offset,
                    subject,
                    "an event that waited for its data key is taken"
                );
            }
        }
        self.tell();
        Ok(())
    }

    async fn page(
        &self,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<(DeadLetter, String)>, StoreError> {
        let filter = DeadLetterFilter {
            consumer: Some(self.0.consumer.clone()),
            key: None,
        };
        let letters = self.0.letters.dead_letters(&filter, after, limit).await?;
        Ok(letters
            .into_iter()
            .map(|mut letter| {
                let subject = match letter.headers.pop_if(|(name, _)| name == WAITS_FOR) {
                    Some((_, subject)) => String::from_utf8_lossy(&subject).into_owned(),
                    None => letter.key.clone(),
                };
                (letter, subject)
            })
            .collect())
    }

    fn tell(&self) {
        #[allow(clippy::cast_precision_loss)] // a gauge
        metrics::gauge!("data_keys_waiting", "reader" => self.0.reader)
            .set(self.subjects().len() as f64);
    }

    fn known(&self) -> MutexGuard<'_, Waits> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(letter: &DeadLetter) -> (String, Position) {
    let position = Position {
        partition: letter.partition,
        offset: letter.offset,
    };
    (letter.topic.clone(), position)
}

fn message(letter: &DeadLetter) -> Message {
    Message {
        topic: letter.topic.clone(),
        position: place(letter).1,
        key: Some(letter.key.clone()),
        headers: letter.headers.clone(),
        payload: letter.payload.clone(),
        published_ms: None,
    }
}

/// The same dead letters without waiting events, which are none: for whoever lists, retries or discards them.
pub struct WithoutWaiting {
    /// All.
    pub letters: Arc<dyn DeadLetterStore>,
    /// Those that wait.
    pub waiting: Vec<Waiting>,
}

#[async_trait]
impl DeadLetterStore for WithoutWaiting {
    async fn park(&self, letters: Vec<DeadLetter>) -> Result<(), StoreError> {
        self.letters.park(letters).await
    }

    async fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
        after: Option<&LetterId>,
        limit: usize,
    ) -> Result<Vec<DeadLetter>, StoreError> {
        let mut found = Vec::new();
        let mut after = after.cloned();
        while found.len() < limit {
            let wanted = limit - found.len();
            let page = self
                .letters
                .dead_letters(filter, after.as_ref(), wanted)
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.id());
            found.extend(
                page.into_iter()
                    .filter(|letter| !is_waiting(&letter.consumer)),
            );
        }
        Ok(found)
    }

    async fn dead_letter(&self, id: &LetterId) -> Result<Option<DeadLetter>, StoreError> {
        if is_waiting(&id.consumer) {
            return Ok(None);
        }
        self.letters.dead_letter(id).await
    }

    async fn count(&self, filter: &DeadLetterFilter) -> Result<u64, StoreError> {
        if let Some(consumer) = &filter.consumer {
            return if is_waiting(consumer) {
                Ok(0)
            } else {
                self.letters.count(filter).await
            };
        }
        let mut count = self.letters.count(filter).await?;
        for waiting in &self.waiting {
            let theirs = DeadLetterFilter {
                consumer: Some(waiting.0.consumer.clone()),
                key: filter.key.clone(),
            };
            count = count.saturating_sub(self.letters.count(&theirs).await?);
        }
        Ok(count)
    }

    async fn parked_keys(&self, consumer: &str) -> Result<Vec<String>, StoreError> {
        self.letters.parked_keys(consumer).await
    }

    async fn unpark(&self, id: &LetterId) -> Result<bool, StoreError> {
        if is_waiting(&id.consumer) {
            return Ok(false);
        }
        self.letters.unpark(id).await
    }

    async fn unpark_key(&self, consumer: &str, key: &str) -> Result<u64, StoreError> {
        if is_waiting(consumer) {
            return Ok(0);
        }
        self.letters.unpark_key(consumer, key).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_warned_of_once_and_only_when_it_has_waited_long() {
        let begun = DateTime::UNIX_EPOCH;
        let place = |offset| {
            let partition = 0;
            ("keys".to_owned(), Position { partition, offset })
        };
        let wait = |seconds| Wait {
            subject: "1".to_owned(),
            key: "1".to_owned(),
            since: begun + TimeDelta::seconds(seconds),
            reason: "the key has not come".to_owned(),
        };
        let mut waits = Waits::default();
        waits.add(place(0), wait(0));
        waits.add(place(1), wait(5));
        // One that waits for a moment alone is never warned of.
        waits.add(place(2), wait(0));
        waits.remove(&place(2));
        let almost = begun + LONG - TimeDelta::milliseconds(1);
        assert_eq!(waits.long(almost), []);
        assert_eq!(waits.long(begun + LONG), [(place(0), wait(0))]);
        assert_eq!(waits.long(begun + LONG), []);
        let later = begun + LONG + TimeDelta::seconds(5);
        assert_eq!(waits.long(later), [(place(1), wait(5))]);
        // One that comes back waits anew.
        waits.remove(&place(0));
        assert_eq!(waits.long(later), []);
        waits.add(place(0), wait(5));
        assert_eq!(waits.long(later), [(place(0), wait(5))]);
    }
}
