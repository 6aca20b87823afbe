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
use chrono::{DateTime, TimeDelta, Utc};
use rdkafka::producer::FutureRecord;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    kafka::{
        connection::Kafka,
        message::Message,
        tail::{self, LogTail, Offsets},
    },
    outbox::Companion,
    sealing::{OpenError, Sealer},
    shutdown::Shutdown,
    store::StoreError,
};

/// How long a key that is not there is awaited before the topic's end is asked for: it is most likely on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(50);
/// How long the ring may take to reach the topic's end.
const CATCH_UP: Duration = Duration::from_secs(20);
/// Data that is younger and has no key has not been erased: its key is on its way. A tombstone is kept for a month (see
/// [`Topic::compacted`](crate::kafka::topics::Topic::compacted)), so an erasure of what is so young is still in the topic.
const YOUNG: TimeDelta = TimeDelta::days(7);
/// First and longest pause while Kafka is away.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

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
        let key: [u8; 32] = rand::random();
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

    /// Seals `plain` for the place that `associated` names.
    #[must_use]
    pub fn seal(&self, plain: &[u8], associated: &str) -> String {
        self.0.seal(plain, associated.as_bytes())
    }

    /// Opens what was sealed for the place that `associated` names.
    ///
    /// # Errors
    /// When another key sealed it, for another place, or it was changed.
    pub fn open(&self, sealed: &str, associated: &str) -> Result<Vec<u8>, OpenError> {
        self.0.open(sealed, associated.as_bytes())
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

/// Subjects whose data is sealed, each with the time of the newest of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealedSubjects(HashMap<String, DateTime<Utc>>);

impl FromIterator<(String, DateTime<Utc>)> for SealedSubjects {
    fn from_iter<I: IntoIterator<Item = (String, DateTime<Utc>)>>(sealed: I) -> Self {
        let mut newest: HashMap<String, DateTime<Utc>> = HashMap::new();
        for (subject, at) in sealed {
            let known = newest.entry(subject).or_insert(at);
            *known = at.max(*known);
        }
        Self(newest)
    }
}

impl SealedSubjects {
    fn subjects(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

/// Where wrapped keys are found.
#[async_trait]
pub trait DataKeys: Send + Sync + 'static {
    /// The wrapped keys of these subjects. One who is not in the answer has been erased.
    ///
    /// # Errors
    /// When that cannot be told now: also when a key is still on its way, which is published together with what it seals.
    async fn wrapped(&self, sealed: &SealedSubjects)
    -> Result<HashMap<String, String>, StoreError>;

    /// The wrapped keys that there are of these subjects. It says nothing of a subject that is not in the answer: one whose
    /// data was never sealed has no key.
    ///
    /// # Errors
    /// When that cannot be told now.
    async fn known(
        &self,
        subjects: &HashSet<String>,
    ) -> Result<HashMap<String, String>, StoreError>;
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

    /// The keys of these subjects, each with its wrapped form; those of erased subjects are missing.
    ///
    /// # Errors
    /// When that cannot be told now.
    pub async fn keys_of(
        &self,
        sealed: &SealedSubjects,
    ) -> Result<HashMap<String, (DataKey, String)>, StoreError> {
        if sealed.0.is_empty() {
            return Ok(HashMap::new());
        }
        self.unwrapped(self.keys.wrapped(sealed).await?)
    }

    /// The keys that there are of these subjects, whose data is not sealed now and may have been before.
    ///
    /// # Errors
    /// When that cannot be told now.
    pub async fn known_keys_of(
        &self,
        subjects: &HashSet<String>,
    ) -> Result<HashMap<String, (DataKey, String)>, StoreError> {
        if subjects.is_empty() {
            return Ok(HashMap::new());
        }
        self.unwrapped(self.keys.known(subjects).await?)
    }

    fn unwrapped(
        &self,
        wrapped: HashMap<String, String>,
    ) -> Result<HashMap<String, (DataKey, String)>, StoreError> {
        wrapped
            .into_iter()
            .map(|(subject, wrapped)| {
                let key = DataKey::unwrap(&self.service, &wrapped, &subject).map_err(|error| {
                    // Another sealing key than the one that wrapped it: to be waited out until that is set right. To
                    // take the customer for erased would be wrong.
                    StoreError::Away(format!(
                        "the data key of {subject:?} does not open with this sealing key: {error}"
                    ))
                })?;
                Ok((subject, (key, wrapped)))
            })
            .collect()
    }

    /// The key that was wrapped so, if it opens.
    ///
    /// # Errors
    /// When another service's key wrapped it, or it is another subject's.
    pub fn unwrap(&self, wrapped: &str, subject: &str) -> Result<DataKey, OpenError> {
        DataKey::unwrap(&self.service, wrapped, subject)
    }
}

/// Keys that are given at once: for tests, and where nothing is sealed. Who has none has been erased.
#[derive(Clone, Debug, Default)]
pub struct FixedKeys(pub HashMap<String, String>);

impl FixedKeys {
    fn of<'a>(&self, subjects: impl Iterator<Item = &'a str>) -> HashMap<String, String> {
        subjects
            .filter_map(|subject| Some((subject.to_owned(), self.0.get(subject)?.clone())))
            .collect()
    }
}

#[async_trait]
impl DataKeys for FixedKeys {
    async fn wrapped(
        &self,
        sealed: &SealedSubjects,
    ) -> Result<HashMap<String, String>, StoreError> {
        Ok(self.of(sealed.subjects()))
    }

    async fn known(
        &self,
        subjects: &HashSet<String>,
    ) -> Result<HashMap<String, String>, StoreError> {
        Ok(self.of(subjects.iter().map(String::as_str)))
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
    kafka: Kafka,
    topic: &'static str,
    held: Mutex<Held>,
    /// Told of every step.
    steps: watch::Sender<u64>,
    role: Role,
}

#[derive(Default)]
struct Held {
    /// `None` for those that are erased.
    keys: HashMap<Box<str>, Option<Box<str>>>,
    /// For each partition the next offset to read.
    next: Offsets,
}

impl Held {
    /// The keys of these, as the topic says after all of it is read.
    fn wrapped(
        &mut self,
        sealed: &SealedSubjects,
        now: DateTime<Utc>,
    ) -> Result<HashMap<String, String>, StoreError> {
        let mut found = HashMap::with_capacity(sealed.0.len());
        for (subject, at) in &sealed.0 {
            match self.keys.get(subject.as_str()) {
                Some(Some(wrapped)) => {
                    found.insert(subject.clone(), wrapped.to_string());
                }
                Some(None) => {}
                None if now - at < YOUNG => {
                    return Err(StoreError::Away(format!(
                        "the data key of {subject:?} is not published yet"
                    )));
                }
                // Its tombstone has been compacted away. Remembered, so that the next one need not wait.
                None => {
                    self.keys.insert(subject.as_str().into(), None);
                }
            }
        }
        Ok(found)
    }
}

impl KeyRing {
    /// Starts to read the topic from its beginning.
    ///
    /// A key that comes after its tombstone (a relay that slept may repeat it) is not taken; the topic's `Owner` publishes
    /// the tombstone again, so that compaction does not bring the key back.
    #[must_use]
    pub fn start(kafka: &Kafka, topic: &'static str, role: Role, shutdown: &Shutdown) -> Self {
        let ring = Self(Arc::new(Ring {
            kafka: kafka.clone(),
            topic,
            held: Mutex::default(),
            steps: watch::channel(0).0,
            role,
        }));
        shutdown.spawn(ring.clone().run(shutdown.clone()));
        ring
    }

    async fn run(self, shutdown: Shutdown) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                Err(error) = self.read() => {
                    tracing::warn!(topic = self.0.topic, %error, ?pause, "data keys cannot be read; trying again");
                }
            }
            if !shutdown.sleep(pause).await {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Reads on from where it was, for ever; ends only when the client cannot go on.
    async fn read(&self) -> Result<std::convert::Infallible, tail::TailError> {
        self.0.kafka.ready().await;
        let ends = tail::ends(&self.0.kafka, self.0.topic).await?;
        let start: Offsets = {
            let held = self.held();
            ends.iter()
                .map(|(partition, (low, _))| {
                    let next = held.next.get(partition).copied().unwrap_or(*low);
                    (*partition, next)
                })
                .collect()
        };
        // The owner needs the keys for rebuilds alone; readers wait for them.
        let log = if self.0.role == Role::Owner {
            LogTail::open_patient(&self.0.kafka, self.0.topic, &start)?
        } else {
            LogTail::open(&self.0.kafka, self.0.topic, &start)?
        };
        self.held().next = start;
        self.step();
        loop {
            self.take(&log.next().await?);
            // What is here already in one step: waking those who wait is the dear part.
            while let Some(message) = log.next_ready() {
                self.take(&message);
            }
            self.step();
        }
    }

    fn take(&self, message: &Message) {
        let mut revived = None;
        {
            let mut held = self.held();
            held.next
                .insert(message.position.partition, message.position.offset + 1);
            let Some(subject) = message.key.as_deref() else {
                return;
            };
            match &message.payload {
                None => {
                    held.keys.insert(subject.into(), None);
                }
                Some(body) => match serde_json::from_slice::<Published>(body) {
                    Ok(_) if held.keys.get(subject).is_some_and(Option::is_none) => {
                        revived = Some(subject.to_owned());
                    }
                    Ok(published) => {
                        held.keys
                            .insert(subject.into(), Some(published.wrapped.into()));
                    }
                    Err(error) => {
                        tracing::error!(topic = self.0.topic, subject, %error, "a data key cannot be read");
                    }
                },
            }
        }
        if let Some(subject) = revived.filter(|_| self.0.role == Role::Owner) {
            let (topic, kafka) = (self.0.topic, self.0.kafka.clone());
            tokio::spawn(async move {
                let tombstone = FutureRecord::<str, str>::to(topic).key(&subject);
                match kafka.send_record(tombstone).await {
                    Ok(()) => {
                        tracing::info!(topic, subject, "a repeated data key was erased again")
                    }
                    // Nothing is readable by it meanwhile; the next start finds it again.
                    Err(error) => {
                        tracing::warn!(topic, subject, %error, "a repeated data key was not erased again");
                    }
                }
            });
        }
    }

    fn step(&self) {
        self.0.steps.send_modify(|steps| *steps += 1);
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether something is known of all of them, be it that they are erased.
    fn knows<'a>(&self, mut subjects: impl Iterator<Item = &'a str>) -> bool {
        let held = self.held();
        subjects.all(|subject| held.keys.contains_key(subject))
    }

    /// Waits until everything is read that is in the topic now.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let away = |reason: String| StoreError::Away(format!("{}: {reason}", self.0.topic));
        let ends = tail::ends(&self.0.kafka, self.0.topic)
            .await
            .map_err(|error| away(error.to_string()))?;
        let mut steps = self.0.steps.subscribe();
        let reached = |_: &u64| {
            let held = self.held();
            ends.iter().all(|(partition, (low, high))| {
                low == high || held.next.get(partition).is_some_and(|next| next >= high)
            })
        };
        match tokio::time::timeout(CATCH_UP, steps.wait_for(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(away("its end was not reached in time".to_owned())),
        }
    }
}

#[async_trait]
impl DataKeys for KeyRing {
    async fn wrapped(
        &self,
        sealed: &SealedSubjects,
    ) -> Result<HashMap<String, String>, StoreError> {
        if !self.knows(sealed.subjects()) {
            let mut steps = self.0.steps.subscribe();
            let arrived = steps.wait_for(|_| self.knows(sealed.subjects()));
            if tokio::time::timeout(ON_ITS_WAY, arrived).await.is_err() {
                self.catch_up().await?;
            }
        }
        self.held().wrapped(sealed, Utc::now())
    }

    async fn known(
        &self,
        subjects: &HashSet<String>,
    ) -> Result<HashMap<String, String>, StoreError> {
        if !self.knows(subjects.iter().map(String::as_str)) {
            self.catch_up().await?;
        }
        let held = self.held();
        Ok(subjects
            .iter()
            .filter_map(|subject| {
                let wrapped = held.keys.get(subject.as_str())?.as_ref()?;
                Some((subject.clone(), wrapped.to_string()))
            })
            .collect())
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
    async fn a_key_of_another_service_is_waited_for_and_not_taken_for_an_erasure() {
        let (_, wrapped) = DataKey::make(&Sealer::new(&[8; 32]), "1");
        let keys = FixedKeys([("1".to_owned(), wrapped)].into());
        let opener = Opener::new(Arc::new(keys), Sealer::new(&[7; 32]));
        let subjects = |id: &str| SealedSubjects::from_iter([(id.to_owned(), Utc::now())]);
        assert!(opener.keys_of(&subjects("1")).await.is_err());
        assert!(opener.keys_of(&subjects("2")).await.unwrap().is_empty());
    }

    #[test]
    fn who_has_no_key_has_been_erased_only_if_a_tombstone_says_so_or_may_be_gone() {
        let now = Utc::now();
        let sealed = |age| SealedSubjects::from_iter([("1".to_owned(), now - age)]);
        let ask = |held: &mut Held, age| held.wrapped(&sealed(age), now);
        let (new, old) = (TimeDelta::seconds(1), TimeDelta::days(30));

        let mut held = Held::default();
        assert!(ask(&mut held, new).is_err());
        // Of several events the newest counts.
        let both = [old, new].map(|age| ("1".to_owned(), now - age));
        assert!(
            held.wrapped(&both.into_iter().collect(), now).is_err(),
            "its key is on its way"
        );
        assert!(ask(&mut held, old).unwrap().is_empty());

        let mut held = Held::default();
        held.keys.insert("1".into(), None);
        assert!(ask(&mut held, new).unwrap().is_empty());

        held.keys.insert("1".into(), Some("wrapped".into()));
        assert_eq!(ask(&mut held, new).unwrap()["1"], "wrapped");
    }
}
