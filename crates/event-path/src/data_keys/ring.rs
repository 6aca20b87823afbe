//! The key ring: the topic of keys, held in memory. Each start reads the whole topic, beginning with what arrived
//! since the last start. The ring answers look-ups of keys. The ring of the topic's owner also publishes to the
//! topic.

mod claims;
mod early;
mod older;
mod reading;
mod remembering;
mod watching;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tandem_runtime::shutdown::Shutdown;
use tokio::sync::{Notify, watch};

use super::{DataKeys, Known, OnTopic, Published, StoredKeys, held::Held, publication};
use crate::{
    log::{Log, PublishError, Record},
    signing::Signatures,
    store::{DeadLetterStore, StoreError},
};

pub use remembering::KeyMemory;

/// How long a look-up waits for a missing key before it asks for the end of the topic. Most likely the key is on its
/// way.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How long the ring may take to reach the end of the topic.
const CATCH_UP: Duration = Duration::from_secs(20);

/// The relation of a process to the topic of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its service publishes the keys.
    Owner,
    /// It only reads them.
    Reader,
}

/// The topic of keys in memory: about 200 bytes for each key. Clones share it.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    log: Arc<dyn Log>,
    shutdown: Shutdown,
    topic: &'static str,
    held: Mutex<Held>,
    /// Changes with every step of reading.
    steps: watch::Sender<u64>,
    role: Role,
    stored: Arc<dyn StoredKeys>,
    /// Whether the topics are known to belong to this system, or to be unclaimed.
    is_claimed: watch::Sender<bool>,
    /// Counts how often the topic was found to be another one than the one that was read.
    replaced: watch::Sender<u64>,
    /// Serializes the callers that read on to the end of the topic, so that each record is read only once.
    reading_on: tokio::sync::Mutex<()>,
    signing: Option<RingPorts>,
    /// Whether the position at which to begin reading is known.
    is_begun: watch::Sender<bool>,
    /// Notified when the whole topic must be read again although it is the same topic.
    begins_again: Notify,
}

/// What a ring verifies records with, and what it keeps in the service's store.
#[derive(Clone)]
pub struct RingPorts {
    /// The signatures that count on the topic.
    pub signatures: Signatures,
    /// The dead letters, for records without a valid signature of the topic's owner.
    pub letters: Arc<dyn DeadLetterStore>,
    /// The memory of how far the topic was read; `None` if the ring always begins at the beginning of the topic.
    pub memory: Option<KeyMemory>,
}

impl KeyRing {
    /// Starts to read the topic from its beginning.
    ///
    /// A key that arrives after its tombstone is ignored (a delayed relay may repeat it). The topic's `Owner`
    /// publishes the tombstone again, so that compaction does not bring the key back. For subjects that the topic
    /// does not show, the ring asks `stored`.
    #[must_use]
    pub fn start(
        log: &Arc<dyn Log>,
        topic: &'static str,
        role: Role,
        stored: Arc<dyn StoredKeys>,
        shutdown: &Shutdown,
    ) -> Self {
        Self::begin(log, topic, role, stored, None, shutdown)
    }

    /// Starts to read a topic whose records are signed. Records without a valid signature become dead letters. Then
    /// the topic's `Owner` publishes the known state of the subject again, because compaction would keep only the
    /// forged record.
    ///
    /// With a memory, the ring begins where the topic was read to before, and reads the older part in the background:
    /// see [`Self::claims`]. Conclusions from a missing key wait until both parts are read.
    #[must_use]
    pub fn start_signed(
        log: &Arc<dyn Log>,
        topic: &'static str,
        role: Role,
        stored: Arc<dyn StoredKeys>,
        ports: RingPorts,
        shutdown: &Shutdown,
    ) -> Self {
        Self::begin(log, topic, role, stored, Some(ports), shutdown)
    }

    fn begin(
        log: &Arc<dyn Log>,
        topic: &'static str,
        role: Role,
        stored: Arc<dyn StoredKeys>,
        signing: Option<RingPorts>,
        shutdown: &Shutdown,
    ) -> Self {
        let is_remembered = signing.as_ref().is_some_and(|it| it.memory.is_some());
        let held = Held {
            is_remembered,
            ..Held::default()
        };
        let ring = Self(Arc::new(Ring {
            log: Arc::clone(log),
            shutdown: shutdown.clone(),
            topic,
            held: Mutex::new(held),
            steps: watch::channel(0).0,
            role,
            stored,
            is_claimed: watch::channel(false).0,
            replaced: watch::channel(0).0,
            reading_on: tokio::sync::Mutex::default(),
            signing,
            is_begun: watch::channel(!is_remembered).0,
            begins_again: Notify::new(),
        }));
        shutdown.spawn(ring.clone().run());
        ring
    }

    fn step(&self) {
        self.held().end_older();
        self.0.steps.send_modify(|steps| *steps += 1);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each subject is known (this includes erased ones), or was looked up before and not found.
    fn is_judged(&self, subjects: &HashSet<String>) -> bool {
        let held = self.held();
        subjects.iter().all(|subject| {
            held.keys.contains_key(subject.as_str()) || held.missed.contains(subject.as_str())
        })
    }

    /// Whether the topic has shown anything about one of these subjects so far.
    #[must_use]
    pub fn shows_any<'a>(&self, mut subjects: impl Iterator<Item = &'a String>) -> bool {
        let held = self.held();
        subjects.any(|subject| held.keys.contains_key(subject.as_str()))
    }

    /// The subjects that the store must be asked about.
    fn to_be_stored(&self, subjects: &HashSet<String>) -> HashSet<String> {
        let held = self.held();
        let asked = |subject: &&String| held.is_store_asked(subject);
        subjects.iter().filter(asked).cloned().collect()
    }

    /// Whether nothing can be answered before the older part is read too: it may show a tombstone that the store does
    /// not know.
    fn is_any_doubtful(&self, subjects: &HashSet<String>) -> bool {
        let held = self.held();
        held.is_behind_itself || subjects.iter().any(|subject| held.is_doubtful(subject))
    }

    /// Looks up the keys that the topic shows, and the stored keys of the other subjects.
    async fn ask(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.judged().await?;
        if self.is_any_doubtful(subjects) {
            self.caught_up().await?;
        }
        let mut known = Known::default();
        let asked = self.to_be_stored(subjects);
        if !asked.is_empty() {
            known = self.0.stored.stored(&asked).await?;
            let lacking = asked.into_iter().filter(|subject| !known.holds(subject));
            let lacking: HashSet<String> = lacking.collect();
            if !self.is_judged(&lacking) {
                self.shown_or_caught_up(&lacking).await?;
            }
        }
        let mut topic = self.held().known(subjects.iter());
        // The topic may not show again yet, or not have any more, a tombstone that the store knows.
        topic
            .wrapped
            .retain(|subject, _| !known.erased.contains(subject));
        // Otherwise the topic has the last word: a tombstone there is final.
        known.wrapped.retain(|subject, _| !topic.holds(subject));
        known.extend(topic);
        Ok(known)
    }

    /// What the topic has shown about these subjects and still has, after the whole topic is read. Records that were
    /// removed from the topic while the ring runs do not count: a process that starts now cannot read them.
    ///
    /// # Errors
    /// When the topic cannot be read to its end now.
    pub async fn published(&self, subjects: &HashSet<String>) -> Result<OnTopic, StoreError> {
        self.judged().await?;
        let ends = self.caught_up().await?;
        Ok(self.held().on_topic(subjects.iter(), &ends))
    }

    /// The topic of keys.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        self.0.topic
    }

    /// At most `limit` of the keys that the topic has shown so far: pairs of subject and wrapped key.
    #[must_use]
    pub fn some_published(&self, limit: usize) -> Vec<(String, String)> {
        let held = self.held();
        let keys = held.keys.iter();
        let judged = keys.filter_map(|(subject, wrapped)| {
            Some((subject.to_string(), wrapped.wrapped.as_ref()?.to_string()))
        });
        let unjudged = held.unjudged.iter().filter_map(|message| {
            let published: Published = serde_json::from_slice(message.payload.as_deref()?).ok()?;
            Some((message.key.clone()?, published.wrapped))
        });
        judged.chain(unjudged).take(limit).collect()
    }

    /// Publishes a wrapped key or a tombstone that the topic has lost.
    ///
    /// # Errors
    /// When Kafka does not accept it, or the topics are not yet known to belong to this system.
    pub async fn publish(&self, subject: &str, wrapped: Option<&str>) -> Result<(), PublishError> {
        if !*self.0.is_claimed.borrow() {
            let reason = "whose the topics are is still being found out";
            return Err(PublishError::Unavailable(reason.to_owned()));
        }
        let body = publication(self.0.topic, subject, wrapped).payload;
        let record = Record::new(self.0.topic, subject, body.as_deref().map(str::as_bytes));
        self.0.log.publish(self.signed(record)).await.map(drop)
    }

    fn signed<'a>(&self, record: Record<'a>) -> Record<'a> {
        match &self.0.signing {
            Some(signing) => signing.signatures.signed(record),
            None => record,
        }
    }

    /// A receiver that changes whenever the topic has shown something new.
    #[must_use]
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.0.steps.subscribe()
    }
}

#[async_trait]
impl DataKeys for KeyRing {
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        // While the older part is read again, most keys are only in the store, which is asked next.
        let is_reading_again = self.held().has_older_left();
        if !is_reading_again && !self.is_judged(subjects) {
            let mut steps = self.0.steps.subscribe();
            let arrived = steps.wait_for(|_| self.is_judged(subjects));
            // In time or not, the look-up below decides.
            let _ = self.0.shutdown.clock().timeout(ON_ITS_WAY, arrived).await;
        }
        let known = self.ask(subjects).await?;
        let mut held = self.held();
        for subject in subjects {
            if !known.holds(subject) && !held.keys.contains_key(subject.as_str()) {
                held.missed.insert(subject.as_str().into());
            }
        }
        Ok(known)
    }

    async fn of_plain(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.ask(subjects).await
    }

    fn shows_any(&self, subjects: &HashSet<String>) -> bool {
        self.shows_any(subjects.iter())
    }
}
