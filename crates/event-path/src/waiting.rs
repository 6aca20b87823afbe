//! Events that wait for their data key. Each is kept in the store until the key arrives. Nothing is concluded from a
//! missing key, and no other event is held up.
//!
//! They are stored beside dead letters, under a separate name, so that a restart loses none. They are not dead letters,
//! and are not copied to a dead letter topic. When the topic of keys shows the key, or proves that it was deleted, the
//! events are processed automatically.
//!
//! Most events wait only a moment: two readers read the two topics, and one of them was ahead. So the log warns of an
//! event only after it has waited 10 s, once in the life of a process. Health and the metric show it from the first
//! moment.

mod in_memory;
mod release;
mod without_waiting;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tandem_model::message::{Message, Position};
use tandem_runtime::clock::Clock;
use tokio::sync::Notify;

use crate::{
    data_keys::Unopened,
    store::{DeadLetter, DeadLetterFilter, DeadLetterStore, LetterId, StoreError},
};

use in_memory::{Wait, Waits};
pub use release::Takes;
pub use without_waiting::WithoutWaiting;

/// The end of the name under which a reader's waiting events are kept.
const SUFFIX: &str = ".waiting";
/// The header of a stored waiting event that names the subject of its data key.
const WAITS_FOR: &str = "tandem-waits-for";
/// Events that are processed at once.
const SOME: usize = 500;

/// The name under which a reader's waiting events are kept in the store of dead letters.
#[must_use]
pub fn kept_under(reader: &str) -> String {
    format!("{reader}{SUFFIX}")
}

/// Whether a name in the store of dead letters stands for waiting events.
#[must_use]
pub fn is_waiting(consumer: &str) -> bool {
    consumer.ends_with(SUFFIX)
}

/// A waiting event, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// The reader that waits: a projection, or the aggregates that are made from these events.
    pub reader: String,
    /// The subject of the missing data key.
    pub subject: String,
    /// The message's key: the id of the aggregate.
    pub key: String,
    /// The topic of the message.
    pub topic: String,
    /// The partition of the message.
    pub partition: i32,
    /// The offset of the message.
    pub offset: i64,
    /// Since when it waits.
    pub since: DateTime<Utc>,
    /// Why it cannot be opened.
    pub reason: String,
}

/// The waiting events of one reader. Clones share the state.
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

    /// Keeps messages until their keys arrive. Keeping one again does no harm.
    ///
    /// # Errors
    /// When the store is unavailable.
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
                    // The whole body. A cut one could never be opened.
                    payload: message.payload,
                    is_cut: false,
                }
            })
            .collect();
        self.0.letters.park(letters).await?;
        for (place, wait) in kept {
            self.known().add(place, wait);
        }
        self.measure();
        // The key may have arrived in between.
        self.0.changed.notify_one();
        Ok(())
    }

    /// Whether an event of this aggregate waits. If so, the stored state is not the newest.
    #[must_use]
    pub fn holds(&self, key: &str) -> bool {
        self.known().keys.contains_key(key)
    }

    /// The subjects whose keys are missing, in order.
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
    /// When the store is unavailable.
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

    /// Loads the waiting events from the store.
    ///
    /// # Errors
    /// When the store is unavailable.
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
        self.measure();
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

    fn measure(&self) {
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
