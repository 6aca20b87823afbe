//! Data keys: one key for each customer, with which everything personal in the log is sealed. Forgetting the key makes it
//! unreadable, in an immutable log too.
//!
//! A key is published wrapped (sealed with the key of the services) on a compacted topic; its tombstone is the erasure. A
//! [`KeyRing`] holds what that topic says.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tandem_model::{
    message::{Message, Position},
    seal::{Key, Seals},
};
use tandem_runtime::{backoff::Backoff, clock::Clock, shutdown::Shutdown};
use tokio::sync::watch;

use crate::{
    claims::{CLAIM, Claim, Claims},
    fault::{self, Fault},
    log::{Arrival, Attention, Ends, Log, LogError, Offsets, PublishError, Record, TopicState},
    outbox::Companion,
    sealing::{OpenError, Sealer},
    signing::Signatures,
    store::{DeadLetter, DeadLetterStore, StoreError, dead_letters::alone},
};

/// How long a key that is not there is awaited before the topic's end is asked for: it is most likely on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How long the end is waited for before it is looked whether there is anything up to it: the end of a topic may be holes.
const SOON: Duration = Duration::from_secs(1);
/// How long the ring may take to reach the topic's end.
const CATCH_UP: Duration = Duration::from_secs(20);
/// So many claims of the topics are held: the first ones, which say whose the topics are, and the newest.
const MOST_CLAIMS: usize = 256;
/// The consumer that dead letters of the topic of keys name.
const CONSUMER: &str = "data-keys";
/// The pauses while Kafka is away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// How long keys may wait at the broker for others where nobody waits for them.
const PATIENCE: Attention = Attention::Patient(Duration::from_millis(500));

/// The key that one subject's data is sealed with.
#[derive(Clone, Debug)]
pub struct DataKey(Sealer);

fn place(subject: &str) -> String {
    format!("data-key/{subject}")
}

impl DataKey {
    /// A new key, and the same wrapped.
    #[must_use]
    pub fn make(service: &Sealer, subject: &str) -> (Self, String) {
        let key = service.fresh_key();
        let wrapped = service.seal(&key, place(subject).as_bytes());
        (Self(Sealer::new(&key)), wrapped)
    }

    /// The key that was wrapped for this subject.
    ///
    /// # Errors
    /// When another service's key wrapped it, or it is another subject's.
    pub fn unwrap(service: &Sealer, wrapped: &str, subject: &str) -> Result<Self, OpenError> {
        let key = service.open(wrapped, place(subject).as_bytes())?;
        let key: [u8; 32] = key.try_into().map_err(|_| OpenError::Malformed)?;
        Ok(Self(Sealer::new(&key)))
    }

    /// The same key wrapped with the newest key of the services; `None` if it is so already.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    pub fn rewrap(
        service: &Sealer,
        wrapped: &str,
        subject: &str,
    ) -> Result<Option<String>, OpenError> {
        service.reseal(wrapped, place(subject).as_bytes())
    }

    /// Seals `plain` for a place.
    #[must_use]
    pub fn seal(&self, plain: &[u8], place: &str) -> String {
        self.0.seal(plain, place.as_bytes())
    }

    /// Opens what was sealed for a place.
    ///
    /// # Errors
    /// When another key sealed it, for another place, or it was changed.
    pub fn open(&self, sealed: &str, place: &str) -> Result<Vec<u8>, OpenError> {
        self.0.open(sealed, place.as_bytes())
    }
}

impl Seals for DataKey {
    fn seal(&self, plain: &[u8], place: &str) -> String {
        self.0.seal(plain, place.as_bytes())
    }

    fn open(&self, sealed: &str, place: &str) -> Result<Vec<u8>, OpenError> {
        self.0.open(sealed, place.as_bytes())
    }
}

/// The body of a message on the topic of keys.
#[derive(Debug, Serialize, Deserialize)]
struct Published {
    wrapped: String,
}

/// The message that publishes a key; the tombstone that erases it if `wrapped` is `None`.
#[must_use]
pub fn publication(topic: &str, subject: &str, wrapped: Option<&str>) -> Companion {
    Companion {
        topic: topic.to_owned(),
        key: subject.to_owned(),
        payload: wrapped.map(|wrapped| serde_json::json!({ "wrapped": wrapped }).to_string()),
    }
}

/// What is known of subjects' keys. Of a subject that is in neither part nothing is known: its key has not come yet, which says
/// nothing of the subject, whatever any clock says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Keys, wrapped.
    pub wrapped: HashMap<String, String>,
    /// Subjects that have been erased: the topic of keys shows the tombstone, or the change after which there is no person is stored.
    pub erased: HashSet<String>,
}

impl Known {
    fn holds(&self, subject: &str) -> bool {
        self.wrapped.contains_key(subject) || self.erased.contains(subject)
    }

    fn extend(&mut self, other: Self) {
        self.wrapped.extend(other.wrapped);
        self.erased.extend(other.erased);
    }
}

/// Where wrapped keys are found.
#[async_trait]
pub trait DataKeys: Send + Sync + 'static {
    /// What is known of these subjects, whose data is sealed.
    ///
    /// # Errors
    /// When nobody can be asked now.
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;

    /// What is known of these subjects, whose data is not sealed now and may have been before: nobody waits for a key of theirs.
    ///
    /// # Errors
    /// When nobody can be asked now.
    async fn of_plain(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;

    /// Whether anything has been heard of one of these so far, without asking anybody.
    fn shows_any(&self, subjects: &HashSet<String>) -> bool;
}

/// What a service's own store knows of keys: it holds the wrapped key of everybody whom it has read, so a topic of keys that was
/// lost, or comes later than the events, hides nobody who is known here.
#[async_trait]
pub trait StoredKeys: Send + Sync + 'static {
    /// What is stored of these subjects.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;
}

/// Why a key that nobody has heard of is missing.
const NOT_COME: &str = "the key is not on the topic of keys";

/// An event that does not open now: whose key it takes, and why that does not do. It waits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waits for the data key of {subject:?}: {reason}")]
pub struct Unopened {
    /// Whose key.
    pub subject: String,
    /// Why it does not open.
    pub reason: String,
}

/// The keys of some subjects.
#[derive(Debug, Default)]
pub struct Keys {
    open: HashMap<String, (DataKey, String)>,
    erased: HashSet<String>,
    /// Keys that do not open, each with the reason.
    shut: HashMap<String, String>,
}

impl Keys {
    /// What is known of the key of this subject.
    #[must_use]
    pub fn of(&self, subject: &str) -> Key<'_> {
        if self.erased.contains(subject) {
            return Key::Erased;
        }
        match self.open.get(subject) {
            Some((key, wrapped)) => Key::Here(key, wrapped),
            None if fault::is_on(Fault::ErasedFromAbsence) => Key::Erased,
            None => Key::Missing(self.shut.get(subject).map_or(NOT_COME, String::as_str)),
        }
    }

    /// Adds those of others.
    pub fn extend(&mut self, other: Self) {
        self.open.extend(other.open);
        self.erased.extend(other.erased);
        self.shut.extend(other.shut);
    }
}

/// Opens what is sealed in events. Clones share it.
#[derive(Clone)]
pub struct Opener {
    keys: Arc<dyn DataKeys>,
    service: Sealer,
}

impl Opener {
    /// Opens with keys that `service` wrapped.
    #[must_use]
    pub fn new(keys: Arc<dyn DataKeys>, service: Sealer) -> Self {
        Self { keys, service }
    }

    /// The keys of these subjects, whose data is sealed.
    ///
    /// # Errors
    /// When nobody can be asked now.
    pub async fn keys_of(&self, subjects: &HashSet<String>) -> Result<Keys, StoreError> {
        if subjects.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.unwrapped(self.keys.of_sealed(subjects).await?))
    }

    /// The keys that there are of these subjects, whose data is not sealed now and may have been before.
    ///
    /// # Errors
    /// When nobody can be asked now.
    pub async fn known_keys_of(&self, subjects: &HashSet<String>) -> Result<Keys, StoreError> {
        if subjects.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.unwrapped(self.keys.of_plain(subjects).await?))
    }

    /// Whether anything has been heard of one of these so far, without asking anybody.
    #[must_use]
    pub fn shows_any(&self, subjects: &HashSet<String>) -> bool {
        self.keys.shows_any(subjects)
    }

    fn unwrapped(&self, known: Known) -> Keys {
        let mut keys = Keys {
            erased: known.erased,
            ..Keys::default()
        };
        for (subject, wrapped) in known.wrapped {
            match DataKey::unwrap(&self.service, &wrapped, &subject) {
                Ok(key) => {
                    keys.open.insert(subject, (key, wrapped));
                }
                // Another sealing key than the one that wrapped it. To take the customer for erased would be wrong, and so would be
                // to stop everybody else.
                Err(error) => {
                    let reason = format!("it does not open with this sealing key: {error}");
                    keys.shut.insert(subject, reason);
                }
            }
        }
        keys
    }

    /// The clock of the service.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        self.service.clock()
    }

    /// The key that was wrapped so, if it opens.
    ///
    /// # Errors
    /// When another service's key wrapped it, or it is another subject's.
    pub fn unwrap(&self, wrapped: &str, subject: &str) -> Result<DataKey, OpenError> {
        DataKey::unwrap(&self.service, wrapped, subject)
    }
}

/// Keys that are given at once: for tests, and where nothing is sealed.
#[derive(Clone, Debug, Default)]
pub struct FixedKeys(pub Known);

impl FixedKeys {
    fn of(&self, subjects: &HashSet<String>) -> Known {
        let mut known = self.0.clone();
        known
            .wrapped
            .retain(|subject, _| subjects.contains(subject));
        known.erased.retain(|subject| subjects.contains(subject));
        known
    }
}

#[async_trait]
impl DataKeys for FixedKeys {
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        Ok(self.of(subjects))
    }

    async fn of_plain(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        Ok(self.of(subjects))
    }

    fn shows_any(&self, subjects: &HashSet<String>) -> bool {
        subjects.iter().any(|subject| self.0.holds(subject))
    }
}

#[async_trait]
impl StoredKeys for FixedKeys {
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        Ok(self.of(subjects))
    }
}

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
    signing: Option<Signing>,
}

/// Whose signatures count on the topic, and where what has none is set aside.
struct Signing {
    signatures: Signatures,
    letters: Arc<dyn DeadLetterStore>,
}

#[derive(Default)]
struct Held {
    keys: HashMap<Box<str>, HeldKey>,
    /// Subjects that were asked for and that the whole topic did not show: nobody waits for these once more. Their events wait in
    /// the store, and are told when the key comes.
    missed: HashSet<Box<str>>,
    /// Claims of the topics, in order.
    claims: Vec<Message>,
    /// What was read before it was known whose signatures count, in order.
    unjudged: Vec<Message>,
    /// For each partition the next offset to read.
    next: Offsets,
    /// The topic that was read last, where the client can tell it from one of the same name.
    identity: Option<String>,
}

/// What the topic has shown of a subject last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HeldKey {
    /// `None` for one that is erased.
    wrapped: Option<Box<str>>,
    /// Where; `None` if that was another topic of this name.
    at: Option<Position>,
}

/// What the topic of keys has shown of some subjects, and what of that it still has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnTopic {
    /// Keys that it has, wrapped.
    pub wrapped: HashMap<String, String>,
    /// Subjects of whom it has shown the tombstone: that is final, whether it still has it or not.
    pub erased: HashSet<String>,
    /// Those of them whose tombstone it still has.
    pub tombstones: HashSet<String>,
}

impl Held {
    fn shows(&mut self, subject: &str, wrapped: Option<Box<str>>, at: Position) {
        let at = Some(at);
        self.keys.insert(subject.into(), HeldKey { wrapped, at });
    }

    fn is_erased(&self, subject: &str) -> bool {
        self.keys
            .get(subject)
            .is_some_and(|key| key.wrapped.is_none())
    }

    /// Compares what was read with what the topic is now. One that was made anew, or ends before what was read of it, is read from its
    /// beginning. One that was made anew and has grown as far as what was read, where the client tells no identity, the next start finds.
    fn compare(&mut self, state: &TopicState) {
        let is_another =
            matches!((&self.identity, &state.identity), (Some(was), Some(is)) if was != is);
        if state.identity.is_some() {
            self.identity.clone_from(&state.identity);
        }
        if is_another {
            self.next.clear();
            self.keys.values_mut().for_each(|key| key.at = None);
            return;
        }
        for (partition, next) in &mut self.next {
            let Some((low, high)) = state.ends.get(partition) else {
                continue;
            };
            if *next > *high {
                *next = *low;
                for key in self.keys.values_mut() {
                    key.at.take_if(|at| at.partition == *partition);
                }
            }
        }
    }

    fn on_topic<'a>(&self, subjects: impl Iterator<Item = &'a String>, ends: &Ends) -> OnTopic {
        let mut shown = OnTopic::default();
        for subject in subjects {
            let Some(HeldKey { wrapped, at }) = self.keys.get(subject.as_str()) else {
                continue;
            };
            let is_there = at.is_some_and(|Position { partition, offset }| {
                let ends = ends.get(&partition);
                ends.is_some_and(|(low, high)| (*low..*high).contains(&offset))
            });
            match wrapped {
                Some(wrapped) if is_there => {
                    shown.wrapped.insert(subject.clone(), wrapped.to_string());
                }
                Some(_) => {}
                None => {
                    shown.erased.insert(subject.clone());
                    if is_there {
                        shown.tombstones.insert(subject.clone());
                    }
                }
            }
        }
        shown
    }

    fn known<'a>(&self, subjects: impl Iterator<Item = &'a String>) -> Known {
        let mut known = Known::default();
        for subject in subjects {
            match self.keys.get(subject.as_str()).map(|key| &key.wrapped) {
                Some(Some(wrapped)) => {
                    known.wrapped.insert(subject.clone(), wrapped.to_string());
                }
                Some(None) => {
                    known.erased.insert(subject.clone());
                }
                None => {}
            }
        }
        known
    }
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
            signing,
        }));
        shutdown.spawn(ring.clone().run());
        ring
    }

    async fn run(self) {
        let shutdown = self.0.shutdown.clone();
        let mut pauses = BACKOFF.pauses(shutdown.clock());
        loop {
            let pause = pauses.next_pause();
            tokio::select! {
                biased;
                () = shutdown.requested() => return,
                read = self.read() => match read {
                    Ok(()) => continue,
                    Err(error) => {
                        tracing::warn!(topic = self.0.topic, %error, ?pause, "data keys cannot be read; trying again");
                    }
                }
            }
            if !shutdown.sleep(pause).await {
                return;
            }
        }
    }

    /// Reads on from where it was, for ever; ends only when the client cannot go on, or is to read in another way.
    async fn read(&self) -> Result<(), LogError> {
        self.0.log.ready().await;
        let state = self.0.log.topic(self.0.topic).await?;
        let start: Offsets = {
            let mut held = self.held();
            held.compare(&state);
            state
                .ends
                .iter()
                .map(|(partition, (low, _))| {
                    let next = held.next.get(partition).copied().unwrap_or(*low);
                    (*partition, next)
                })
                .collect()
        };
        // The owner needs the keys for rebuilds alone, once the claims are read; readers wait for them.
        let mut is_claimed = self.0.is_claimed.subscribe();
        let attention = if *is_claimed.borrow_and_update() && self.0.role == Role::Owner {
            PATIENCE
        } else {
            Attention::Prompt
        };
        let log = self.0.log.tail(self.0.topic, &start, attention)?;
        self.held().next = start;
        self.step();
        loop {
            let arrival = tokio::select! {
                biased;
                arrival = log.next() => arrival?,
                Ok(()) = is_claimed.changed(), if self.0.role == Role::Owner => return Ok(()),
            };
            self.arrived(&arrival);
            // What is here already in one step: waking those who wait is the dear part.
            while let Some(arrival) = log.next_ready() {
                self.arrived(&arrival);
            }
            self.step();
        }
    }

    fn arrived(&self, arrival: &Arrival) {
        if let Arrival::Record(message) = arrival {
            self.take(message);
        }
    }

    fn take(&self, message: &Message) {
        {
            let mut held = self.held();
            let Position { partition, offset } = message.position;
            held.next.insert(partition, offset + 1);
            if message
                .key
                .as_deref()
                .is_some_and(|key| key.starts_with(CLAIM))
            {
                if held.claims.len() == MOST_CLAIMS {
                    held.claims.remove(MOST_CLAIMS / 2);
                }
                held.claims.push(message.clone());
                return;
            }
            if self.0.signing.is_some() && !*self.0.is_claimed.borrow() {
                held.unjudged.push(message.clone());
                return;
            }
        }
        self.take_judged(message);
    }

    /// Takes a message if it is signed by the topic's owner.
    fn take_judged(&self, message: &Message) {
        let Some(subject) = message.key.as_deref() else {
            return;
        };
        if let Some(signing) = &self.0.signing
            && let Err(reason) = signing.signatures.judge(message)
        {
            return self.refuse(subject, message, &reason.to_string());
        }
        let mut is_revived = false;
        {
            let mut held = self.held();
            held.missed.remove(subject);
            match &message.payload {
                None => held.shows(subject, None, message.position),
                Some(body) => match serde_json::from_slice::<Published>(body) {
                    Ok(_) if held.is_erased(subject) => {
                        is_revived = true;
                    }
                    Ok(published) => {
                        held.shows(subject, Some(published.wrapped.into()), message.position);
                    }
                    Err(error) => {
                        tracing::error!(topic = self.0.topic, subject, %error, "a data key cannot be read");
                    }
                },
            }
        }
        if is_revived {
            // Nothing is readable by a repeated key meanwhile; the next start finds it again.
            self.put_right(subject);
        }
    }

    /// Sets a message aside that nobody who may write to the topic has signed.
    fn refuse(&self, subject: &str, message: &Message, reason: &str) {
        let Some(signing) = &self.0.signing else {
            return;
        };
        metrics::counter!("events_refused_total", "topic" => self.0.topic).increment(1);
        let Position { partition, offset } = message.position;
        tracing::error!(
            topic = self.0.topic,
            partition,
            offset,
            subject,
            reason,
            "a record of the topic of keys is set aside as a dead letter"
        );
        let now = self.0.shutdown.clock().now().into();
        let letter = DeadLetter::new(
            CONSUMER,
            message.clone(),
            alone(message),
            reason.to_owned(),
            now,
        );
        let letters = Arc::clone(&signing.letters);
        self.0.shutdown.spawn(async move {
            // It stays in the topic: the next start sets it aside if this fails.
            if let Err(error) = letters.park(vec![letter]).await {
                tracing::warn!(%error, partition, offset, "a dead letter of the topic of keys is not kept");
            }
        });
        self.put_right(subject);
    }

    /// Publishes again what is known of a subject, behind a record that says something else: compaction keeps the newest one alone. That is
    /// the owner's part.
    fn put_right(&self, subject: &str) {
        if self.0.role != Role::Owner {
            return;
        }
        let (ring, subject) = (self.clone(), subject.to_owned());
        let (mut claimed, stop) = (self.0.is_claimed.subscribe(), self.0.shutdown.clone());
        self.0.shutdown.spawn(async move {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                _ = claimed.wait_for(|is_claimed| *is_claimed) => {}
            }
            // What is not held is put right by the comparison with the store, which every start makes.
            let held = ring.held().keys.get(subject.as_str()).cloned();
            let Some(known) = held else { return };
            match ring.publish(&subject, known.wrapped.as_deref()).await {
                Ok(()) => tracing::info!(subject, "what is known of a data key was published again"),
                Err(error) => tracing::warn!(subject, %error, "what is known of a data key was not published again; the next start does"),
            }
        });
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

    /// Those of whom the topic shows nothing.
    fn unknown(&self, subjects: &HashSet<String>) -> HashSet<String> {
        let held = self.held();
        let unknown = |subject: &&String| !held.keys.contains_key(subject.as_str());
        subjects.iter().filter(unknown).cloned().collect()
    }

    /// What the topic shows, and of those whom it does not show what is stored.
    async fn ask(&self, subjects: &HashSet<String>) -> Result<Known, StoreError> {
        self.judged().await?;
        let mut known = Known::default();
        let unknown = self.unknown(subjects);
        if !unknown.is_empty() {
            known = self.0.stored.stored(&unknown).await?;
            if !unknown.iter().all(|subject| known.holds(subject)) && !self.is_judged(&unknown) {
                self.catch_up().await?;
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
        let ends = self.catch_up().await?;
        Ok(self.held().on_topic(subjects.iter(), &ends))
    }

    /// Says that the topics are this system's, and that it is known whose signatures count: from now on keys are published, and what was
    /// read is judged.
    pub fn admit(&self) {
        let unjudged = {
            let mut held = self.held();
            self.0.is_claimed.send_replace(true);
            std::mem::take(&mut held.unjudged)
        };
        for message in &unjudged {
            self.take_judged(message);
        }
        self.step();
    }

    /// Waits until it is known whose signatures count.
    async fn judged(&self) -> Result<(), StoreError> {
        if self.0.signing.is_none() || *self.0.is_claimed.borrow() {
            return Ok(());
        }
        let mut is_claimed = self.0.is_claimed.subscribe();
        let claimed = is_claimed.wait_for(|is_claimed| *is_claimed);
        match self.0.shutdown.clock().timeout(CATCH_UP, claimed).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(StoreError::Away(format!(
                "{}: whose the topics are is still being found out",
                self.0.topic
            ))),
        }
    }

    /// Whom the topics are claimed for, after all of the topic of keys is read.
    ///
    /// # Errors
    /// When the topic cannot be read to its end now.
    pub async fn claims(&self) -> Result<Claims, StoreError> {
        self.catch_up().await?;
        Ok(self.claims_so_far())
    }

    fn claims_so_far(&self) -> Claims {
        let messages = self.held().claims.clone();
        let signatures = self.0.signing.as_ref().map(|signing| &signing.signatures);
        Claims::of_messages(&messages, signatures)
    }

    /// The topic of keys.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        self.0.topic
    }

    /// Waits until the topic has shown a claim.
    pub async fn claimed(&self) {
        self.claimed_anew(0).await;
    }

    /// Waits until the topic has shown more claims than `seen`; answers how many.
    pub async fn claimed_anew(&self, seen: usize) -> usize {
        let mut steps = self.0.steps.subscribe();
        // Its sender lives as long as this ring.
        let _ = steps.wait_for(|_| self.held().claims.len() > seen).await;
        self.held().claims.len()
    }

    /// Whether the newest claim for a service is not signed by it.
    pub(crate) fn is_last_claim_refused(&self, service: &str) -> bool {
        let key = format!("{CLAIM}{service}");
        let last = {
            let held = self.held();
            let of_service = |message: &&Message| message.key.as_deref() == Some(&*key);
            held.claims.iter().rfind(of_service).cloned()
        };
        match (&self.0.signing, last) {
            (Some(signing), Some(last)) => signing.signatures.judge(&last).is_err(),
            _ => false,
        }
    }

    /// Claims the topics for a service; takes its claim back if there is none.
    ///
    /// # Errors
    /// When Kafka does not take it.
    pub async fn claim(&self, service: &str, claim: Option<&Claim>) -> Result<(), StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::Corrupt(error.to_string());
        let body = claim.map(serde_json::to_vec).transpose().map_err(corrupt)?;
        let key = format!("{CLAIM}{service}");
        let record = Record::new(self.0.topic, &key, body.as_deref());
        let sent = self.0.log.publish(self.signed(record)).await;
        sent.map(drop)
            .map_err(|error| StoreError::Away(format!("{}: {error}", self.0.topic)))
    }

    /// Has the claim of a service name another sealing key; nothing if there is no claim.
    ///
    /// # Errors
    /// When Kafka does not take it, or the topic cannot be read to its end now.
    pub async fn claim_with_sealing_key(
        &self,
        service: &str,
        fingerprint: &str,
    ) -> Result<(), StoreError> {
        let claims = self.claims().await?;
        let Some(claim) = claims.of.get(service) else {
            return Ok(());
        };
        if claim.sealing_key == fingerprint {
            return Ok(());
        }
        let claim = Claim {
            sealing_key: fingerprint.to_owned(),
            ..claim.clone()
        };
        self.claim(service, Some(&claim)).await
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

    /// Waits until everything is read that is in the topic now.
    async fn catch_up(&self) -> Result<Ends, StoreError> {
        let away = |reason: String| StoreError::Away(format!("{}: {reason}", self.0.topic));
        let state = self.0.log.topic(self.0.topic).await;
        let state = state.map_err(|error| away(error.to_string()))?;
        self.held().compare(&state);
        let ends = state.ends;
        let mut steps = self.0.steps.subscribe();
        let reached = |_: &u64| {
            let held = self.held();
            ends.iter().all(|(partition, (low, high))| {
                low == high || held.next.get(partition).is_some_and(|next| next >= high)
            })
        };
        let clock = self.0.shutdown.clock();
        if clock
            .timeout(SOON, steps.wait_for(reached))
            .await
            .is_ok_and(|reached| reached.is_ok())
        {
            return Ok(ends);
        }
        match clock.timeout(CATCH_UP, self.read_to(&ends)).await {
            Ok(Ok(())) => Ok(ends),
            Ok(Err(error)) => Err(away(error.to_string())),
            Err(_) => Err(away("its end was not reached in time".to_owned())),
        }
    }

    /// Reads on to these ends, past whatever holes are there: markers of transactions, and what was compacted.
    async fn read_to(&self, ends: &Ends) -> Result<(), LogError> {
        let mut left: Offsets = {
            let held = self.held();
            let next = |partition: &i32, low: i64| {
                let next = held.next.get(partition).copied().unwrap_or(low);
                (*partition, next.max(low))
            };
            ends.iter()
                .map(|(partition, (low, high))| (next(partition, *low), *high))
                .filter(|((_, next), high)| next < high)
                .map(|(next, _)| next)
                .collect()
        };
        if left.is_empty() {
            return Ok(());
        }
        let log = self.0.log.tail(self.0.topic, &left, Attention::Prompt)?;
        while !left.is_empty() {
            match log.next().await? {
                Arrival::Record(message) => {
                    let Position { partition, offset } = message.position;
                    let next = self.held().next.get(&partition).copied();
                    if next.is_none_or(|next| next <= offset) {
                        self.take(&message);
                    }
                    if ends
                        .get(&partition)
                        .is_some_and(|(_, high)| offset + 1 >= *high)
                    {
                        left.remove(&partition);
                    }
                }
                Arrival::End(partition) => {
                    left.remove(&partition);
                    if let Some((_, high)) = ends.get(&partition) {
                        let mut held = self.held();
                        let next = held.next.entry(partition).or_default();
                        *next = (*next).max(*high);
                    }
                }
            }
        }
        self.step();
        Ok(())
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_wrapped_key_opens_for_its_subject_alone() {
        let service = Sealer::new(&[7; 32]);
        let (key, wrapped) = DataKey::make(&service, "1");
        let sealed = key.seal(b"Ada", "customer/1/1");
        let again = DataKey::unwrap(&service, &wrapped, "1").unwrap();
        assert_eq!(again.open(&sealed, "customer/1/1").unwrap(), b"Ada");
        assert!(again.open(&sealed, "customer/1/2").is_err());
        assert!(DataKey::unwrap(&service, &wrapped, "2").is_err());
        assert!(DataKey::unwrap(&Sealer::new(&[8; 32]), &wrapped, "1").is_err());
    }

    #[tokio::test]
    async fn only_a_tombstone_says_that_somebody_was_erased() {
        let service = Sealer::new(&[7; 32]);
        let known = Known {
            wrapped: [
                ("here".to_owned(), DataKey::make(&service, "here").1),
                (
                    "other".to_owned(),
                    DataKey::make(&Sealer::new(&[8; 32]), "other").1,
                ),
            ]
            .into(),
            erased: ["gone".to_owned()].into(),
        };
        let opener = Opener::new(Arc::new(FixedKeys(known)), service);
        let all = ["here", "other", "gone", "unheard"].map(str::to_owned);
        let keys = opener.keys_of(&all.into()).await.unwrap();
        assert!(matches!(keys.of("here"), Key::Here(..)));
        assert!(matches!(keys.of("gone"), Key::Erased));
        // A key that another sealing key wrapped, and one that has not come, are missing; whoever asks for the others has theirs.
        assert!(matches!(keys.of("other"), Key::Missing(reason) if reason.contains("sealing key")));
        assert!(matches!(keys.of("unheard"), Key::Missing(NOT_COME)));
    }

    #[test]
    fn what_the_topic_does_not_show_is_not_concluded() {
        let mut held = Held::default();
        let subjects = ["1".to_owned()];
        assert_eq!(held.known(subjects.iter()), Known::default());
        let at = Position {
            partition: 0,
            offset: 5,
        };
        held.shows("1", None, at);
        assert!(held.known(subjects.iter()).erased.contains("1"));
        held.shows("1", Some("wrapped".into()), at);
        assert_eq!(held.known(subjects.iter()).wrapped["1"], "wrapped");
    }
    fn at(partition: i32, offset: i64) -> Position {
        Position { partition, offset }
    }

    fn topic(identity: &str, ends: &[(i64, i64)]) -> TopicState {
        TopicState {
            identity: Some(identity.to_owned()),
            ends: (0..).zip(ends.iter().copied()).collect(),
        }
    }

    #[test]
    fn what_was_removed_from_the_topic_counts_as_lost_and_nothing_else() {
        let mut held = Held::default();
        held.shows("early", Some("1".into()), at(0, 1));
        held.shows("late", Some("2".into()), at(0, 4));
        held.shows("other", Some("3".into()), at(1, 0));
        held.shows("gone", None, at(0, 2));
        held.next = [(0, 5), (1, 1)].into();
        let all = ["early", "late", "other", "gone", "unheard"].map(str::to_owned);
        let mut told = |state: &TopicState| {
            held.compare(state);
            let shown = held.on_topic(all.iter(), &state.ends);
            assert!(shown.erased.contains("gone"), "a tombstone is final");
            let mut there: Vec<String> =
                shown.wrapped.into_keys().chain(shown.tombstones).collect();
            there.sort();
            (there.join(" "), held.next.clone())
        };
        let read = Offsets::from([(0, 5), (1, 1)]);
        assert_eq!(
            told(&topic("a", &[(0, 5), (0, 1)])),
            ("early gone late other".to_owned(), read.clone())
        );
        assert_eq!(
            told(&topic("a", &[(2, 5), (0, 1)])),
            ("gone late other".to_owned(), read.clone())
        );
        assert_eq!(
            told(&topic("a", &[(5, 5), (0, 1)])),
            ("other".to_owned(), read)
        );
        // What ends before what was read of it is read again, whatever became of it.
        assert_eq!(
            told(&topic("a", &[(0, 2), (0, 1)])),
            ("other".to_owned(), [(0, 0), (1, 1)].into())
        );
        // Made anew, and grown past what was read of the old one.
        assert_eq!(
            told(&topic("b", &[(0, 100), (0, 100)])),
            (String::new(), Offsets::new())
        );
    }
}
