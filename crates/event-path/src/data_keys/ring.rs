//! The key ring: the topic of keys held in memory. It is read from its beginning, answers look-ups of keys, and its
//! owner publishes to the topic.

mod claims;
mod early;
mod reading;
mod watching;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tandem_runtime::shutdown::Shutdown;
use tokio::sync::watch;

use super::{DataKeys, Known, OnTopic, Published, StoredKeys, held::Held, publication};
use crate::{
    log::{Log, PublishError, Record},
    signing::Signatures,
    store::{DeadLetterStore, StoreError},
};

/// How long a key that is not there is awaited before the topic's end is asked for: it is most likely on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How long the ring may take to reach the topic's end.
const CATCH_UP: Duration = Duration::from_secs(20);

/// What a process is to the topic of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its service publishes the keys.
    Owner,
    /// It only reads them.
    Reader,
}

/// What the topic of keys says, in memory: about 200 bytes a key. Clones share it.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    log: Arc<dyn Log>,
    shutdown: Shutdown,
    topic: &'static str,
    held: Mutex<Held>,
    /// Told of every step.
    steps: watch::Sender<u64>,
    role: Role,
    stored: Arc<dyn StoredKeys>,
    /// Whether the topics are known to be this system's.
    is_claimed: watch::Sender<bool>,
    /// How often the topic was found to be another one than the one that was read.
    replaced: watch::Sender<u64>,
    /// One of those that wait for the end of the topic reads on to it for all of them, so that it is not read once for each.
    reading_on: tokio::sync::Mutex<()>,
    signing: Option<Signing>,
}

/// Whose signatures count on the topic, and where what has none is set aside.
struct Signing {
    signatures: Signatures,
    letters: Arc<dyn DeadLetterStore>,
}

impl KeyRing {
    /// Starts to read the topic from its beginning.
    ///
    /// A key that comes after its tombstone (a relay that slept may repeat it) is not taken; the topic's `Owner` publishes
    /// the tombstone again, so that compaction does not bring the key back. What the topic does not show, `stored` is asked for.
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

    /// Starts to read a topic whose records are signed. What is not is set aside in `letters`; the topic's `Owner` publishes what it knows
    /// of the subject again, for compaction would leave the forged record alone.
    #[must_use]
    pub fn start_signed(
        log: &Arc<dyn Log>,
        topic: &'static str,
        role: Role,
        stored: Arc<dyn StoredKeys>,
        signatures: Signatures,
        letters: Arc<dyn DeadLetterStore>,
        shutdown: &Shutdown,
    ) -> Self {
        let signing = Signing {
            signatures,
            letters,
        };
        Self::begin(log, topic, role, stored, Some(signing), shutdown)
    }

    fn begin(
        log: &Arc<dyn Log>,
        topic: &'static str,
        role: Role,
        stored: Arc<dyn StoredKeys>,
        signing: Option<Signing>,
        shutdown: &Shutdown,
    ) -> Self {
        let ring = Self(Arc::new(Ring {
            log: Arc::clone(log),
            shutdown: shutdown.clone(),
            topic,
            held: Mutex::default(),
            steps: watch::channel(0).0,
            role,
            stored,
            is_claimed: watch::channel(false).0,
            replaced: watch::channel(0).0,
            reading_on: tokio::sync::Mutex::default(),
            signing,
        }));
        shutdown.spawn(ring.clone().run());
        ring
    }

    fn step(&self) {
        self.0.steps.send_modify(|steps| *steps += 1);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether each is known, be it that it is erased, or was missed before.
    fn is_judged(&self, subjects: &HashSet<String>) -> bool {
        let held = self.held();
        subjects.iter().all(|subject| {
            held.keys.contains_key(subject.as_str()) || held.missed.contains(subject.as_str())
        })
    }

    /// Whether the topic has shown anything of one of these so far.
    #[must_use]
    pub fn shows_any<'a>(&self, mut subjects: impl Iterator<Item = &'a String>) -> bool {
        let held = self.held();
        subjects.any(|subject| held.keys.contains_key(subject.as_str()))
    }

    /// The subjects that the topic shows nothing of.
    fn unknown(&self, subjects: &HashSet<String>) -> HashSet<String> {
        let held = self.held();
        let unknown = |subject: &&String| !held.keys.contains_key(subject.as_str());
        subjects.iter().filter(unknown).cloned().collect()
    }

    /// The keys that the topic shows, and for other subjects those that are stored.
    async fn ask(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.judged().await?;
        let is_behind_itself = self.held().is_behind_itself;
        if is_behind_itself {
            self.caught_up().await?;
        }
        let mut known = Known::default();
        let unknown = self.unknown(subjects);
        if !unknown.is_empty() {
            known = self.0.stored.stored(&unknown).await?;
            if !unknown.iter().all(|subject| known.holds(subject)) && !self.is_judged(&unknown) {
                self.caught_up().await?;
            }
        }
        let topic = self.held().known(subjects.iter());
        // The topic has the last word: a tombstone there is final.
        known.wrapped.retain(|subject, _| !topic.holds(subject));
        known.extend(topic);
        Ok(known)
    }

    /// What the topic has shown of these, and still has, after all of it is read: what was removed from it while this ran nobody can read
    /// who begins now.
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

    /// At most so many of the keys that the topic has shown so far: subjects, each with the wrapped key.
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

    /// Publishes a subject's wrapped key, or its tombstone, which the topic has lost.
    ///
    /// # Errors
    /// When Kafka does not take it, or the topics are not known to be this system's yet.
    pub async fn publish(&self, subject: &str, wrapped: Option<&str>) -> Result<(), PublishError> {
        if !*self.0.is_claimed.borrow() {
            let reason = "whose the topics are is still being found out";
            return Err(PublishError::Away(reason.to_owned()));
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

    /// Answers when the topic has shown something new since the last call with this receiver.
    #[must_use]
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.0.steps.subscribe()
    }
}

#[async_trait]
impl DataKeys for KeyRing {
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        if !self.is_judged(subjects) {
            let mut steps = self.0.steps.subscribe();
            let arrived = steps.wait_for(|_| self.is_judged(subjects));
            // Over in time or not, what counts is what is there afterwards.
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
