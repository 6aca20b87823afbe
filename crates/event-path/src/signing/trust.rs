//! Whose signatures count in which topic, and from which offset on they are required.

mod judging;
mod pinning;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use lru::LruCache;

use super::{
    SIGNATURE,
    canonical::{self, Leaf},
    key::{SigningKey, SigningSettings, VerifyingKey},
    looks::Looks,
    signature::{self, Signed},
    signer::Signer,
};
use crate::log::Record;

/// Verified signatures that are remembered. Records that were published together share one, so the next records most
/// likely have one of these.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Topics, each with the only service that may write to it.
pub type Topics = &'static [(&'static str, &'static str)];

/// Signs what a service publishes, and judges what it reads. Clones share the state.
#[derive(Clone, Debug)]
pub struct Signatures(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: &'static str,
    key: SigningKey,
    topics: Topics,
    accepts_unsigned: bool,
    given: BTreeMap<String, Vec<VerifyingKey>>,
    pinned: RwLock<BTreeMap<String, Signer>>,
    /// For each service, the number of the newest known claim. It may be from before this process.
    claim_numbers: Mutex<BTreeMap<String, u64>>,
    /// Whether a claim is believed if it is signed with a key that it names itself. Only an operator orders this.
    believes_claims: AtomicBool,
    good: Mutex<LruCache<Signed, ()>>,
    looks: Looks,
}

impl Signatures {
    /// Signs as this service with this key. Judges records of these topics by the keys that the settings trust. Further
    /// keys are pinned later.
    #[must_use]
    pub fn new(
        service: &'static str,
        key: SigningKey,
        topics: Topics,
        settings: &SigningSettings,
    ) -> Self {
        let mut given: BTreeMap<String, Vec<VerifyingKey>> = BTreeMap::new();
        for signer in &settings.trusted_signers {
            given
                .entry(signer.service.clone())
                .or_default()
                .push(signer.key);
        }
        Self(Arc::new(Shared {
            service,
            key,
            topics,
            accepts_unsigned: settings.accept_unsigned,
            given,
            pinned: RwLock::default(),
            claim_numbers: Mutex::default(),
            believes_claims: AtomicBool::new(false),
            good: Mutex::new(LruCache::new(REMEMBERED)),
            looks: Looks::new(),
        }))
    }

    /// The service that signs.
    #[must_use]
    pub fn service(&self) -> &'static str {
        self.0.service
    }

    /// The key that verifies this service's signatures.
    #[must_use]
    pub fn verifying(&self) -> &VerifyingKey {
        self.0.key.verifying()
    }

    /// The services whose topics are read.
    pub(crate) fn services(&self) -> Vec<&'static str> {
        let mut services: Vec<_> = self.0.topics.iter().map(|(_, service)| *service).collect();
        services.sort_unstable();
        services.dedup();
        services
    }

    /// The topics to which only this service may write.
    pub(crate) fn topics_of(&self, service: &str) -> Vec<&'static str> {
        let topics = self.0.topics.iter();
        topics
            .filter(|(_, owner)| *owner == service)
            .map(|(topic, _)| *topic)
            .collect()
    }

    /// Whether records without a signature are accepted at any position.
    pub(crate) fn accepts_unsigned(&self) -> bool {
        self.0.accepts_unsigned
    }

    fn owner(&self, topic: &str) -> Option<&'static str> {
        let mut topics = self.0.topics.iter();
        topics
            .find(|(of, _)| *of == topic)
            .map(|(_, service)| *service)
    }

    /// Whether this service signs the records of a topic.
    #[must_use]
    pub fn signs(&self, topic: &str) -> bool {
        self.owner(topic) == Some(self.0.service)
    }

    /// Adds a signature to the record if its topic belongs to this service.
    #[must_use]
    pub fn signed<'a>(&self, mut record: Record<'a>) -> Record<'a> {
        if self.signs(record.topic) {
            let leaf = canonical::of_record(&record);
            let signature = signature::sign(&self.0.key, &[leaf]).swap_remove(0);
            record
                .headers
                .push((SIGNATURE, signature.into_bytes().into()));
        }
        record
    }

    /// The signatures of records that are published together, [`super::MOST_TOGETHER`] at most.
    #[must_use]
    pub fn sign_together(&self, records: &[Record<'_>]) -> Vec<String> {
        let leaves: Vec<Leaf> = records.iter().map(canonical::of_record).collect();
        self.sign(&leaves)
    }

    /// The hash of the signed parts of a record.
    pub(crate) fn leaf(record: &Record<'_>) -> Leaf {
        canonical::of_record(record)
    }

    /// Signs records with these leaves together, [`super::MOST_TOGETHER`] at most.
    pub(crate) fn sign(&self, leaves: &[Leaf]) -> Vec<String> {
        signature::sign(&self.0.key, leaves)
    }

    /// The pinned keys and offsets of a service.
    #[must_use]
    pub fn signer(&self, service: &str) -> Option<Signer> {
        self.pinned(|pinned| pinned.get(service).cloned())
    }

    /// The pinned keys and offsets of the service that owns a topic.
    pub(crate) fn signer_of(&self, topic: &str) -> Option<Signer> {
        self.signer(self.owner(topic)?)
    }

    fn pinned<T>(&self, read: impl FnOnce(&BTreeMap<String, Signer>) -> T) -> T {
        read(&self.0.pinned.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sets the pinned keys and offsets of a service.
    pub fn trust(&self, service: &str, signer: Signer) {
        let mut pinned = self
            .0
            .pinned
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        pinned.insert(service.to_owned(), signer);
    }

    /// The number of the newest known claim of a service. 0 if none is known.
    pub(crate) fn claim_number(&self, service: &str) -> u64 {
        let numbers = self.claim_numbers();
        numbers.get(service).copied().unwrap_or_default()
    }

    /// Notes the number of a claim. Claims of the service with a lower number count as old.
    pub(crate) fn know_claim_number(&self, service: &str, number: u64) {
        let mut numbers = self.claim_numbers();
        let known = numbers.entry(service.to_owned()).or_default();
        *known = number.max(*known);
    }

    fn claim_numbers(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        let numbers = self.0.claim_numbers.lock();
        numbers.unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on a claim is believed if it is signed with a key that it names itself. An operator says that the known
    /// key is lost.
    pub(crate) fn believe_claims(&self) {
        self.0.believes_claims.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::believe_claims`] was called.
    pub(crate) fn believes_claims(&self) -> bool {
        self.0.believes_claims.load(Ordering::Relaxed)
    }

    /// The keys that the settings name for a service.
    pub(crate) fn given(&self, service: &str) -> &[VerifyingKey] {
        self.0.given.get(service).map_or(&[], Vec::as_slice)
    }
}
