//! Whose signatures count on which topic, and from where on there must be one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::num::NonZeroUsize;
use tandem_model::{cloudevents, message::Message};
use tandem_runtime::clock::Clock;
use tokio::sync::watch;

use super::{
    SIGNATURE,
    canonical::{self, Leaf},
    key::{SigningKey, SigningSettings, VerifyingKey},
    looks::Looks,
    signature::{self, Signature, Signed, Unverified},
};
use crate::fault::{self, Fault};
use crate::{
    log::{Offsets, Record},
    store::{Registry, StoreError},
};

/// So many groups of records are remembered whose common signature was found good: those that come next are most likely of one of them.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Topics, each with the service that alone writes there.
pub type Topics = &'static [(&'static str, &'static str)];

/// A service whose signatures count, as a store pins it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// Its verifying keys, the newest first.
    pub keys: Vec<VerifyingKey>,
    /// For each of its topics and each partition the offset from which on every record must be signed. What is not named is so from 0 on.
    #[serde(default)]
    pub from: BTreeMap<String, Offsets>,
}

impl Signer {
    /// Whether a record may be without a signature.
    fn may_lack(&self, message: &Message) -> bool {
        let from = self.from.get(&message.topic);
        let from = from.and_then(|from| from.get(&message.position.partition));
        message.position.offset < from.copied().unwrap_or_default()
    }

    /// Judges a record that must be signed.
    ///
    /// # Errors
    /// Why it is not the service's.
    pub fn has_signed(&self, service: &str, message: &Message) -> Result<(), Unverified> {
        verified(service, message, &self.keys)
    }

    /// Judges a record of one of the service's topics.
    ///
    /// # Errors
    /// Why it is not the service's.
    pub fn judge(&self, service: &str, message: &Message) -> Result<(), Unverified> {
        match self.has_signed(service, message) {
            Err(Unverified::Missing(_)) if self.may_lack(message) => Ok(()),
            judged => judged,
        }
    }
}

/// Whether one of these keys has signed a record.
fn verified(service: &str, message: &Message, keys: &[VerifyingKey]) -> Result<(), Unverified> {
    let signed = signature_of(message)?;
    let signed = signed.ok_or_else(|| Unverified::Missing(service.to_owned()))?;
    let key = key_of(service, &signed, keys.iter())?;
    let root = signed.root(canonical::of_message(message));
    if signed.is_of(&root, key) {
        Ok(())
    } else {
        Err(Unverified::Changed)
    }
}

/// The key among these that made a signature.
fn key_of<'a>(
    service: &str,
    signed: &Signature,
    mut keys: impl Iterator<Item = &'a VerifyingKey>,
) -> Result<&'a VerifyingKey, Unverified> {
    keys.find(|key| key.id() == signed.key)
        .ok_or_else(|| Unverified::OtherKey {
            key: signed
                .key
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
            service: service.to_owned(),
        })
}

/// Signs what a service publishes, and judges what it reads. Clones share it.
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
    /// Whether a claim need only be signed by a key that it names itself: an operator's order.
    believes_claims: AtomicBool,
    good: Mutex<LruCache<Signed, ()>>,
    looks: Looks,
}

/// Under this name a store remembers a service's verifying keys.
fn name(service: &str) -> String {
    format!("signer/{service}")
}

impl Signatures {
    /// Signs as this service with this key, and judges records of these topics by what the settings trust; the rest is pinned later.
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

    /// What its signatures are verified with.
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

    /// The topics that a service alone writes to.
    pub(crate) fn topics_of(&self, service: &str) -> Vec<&'static str> {
        let topics = self.0.topics.iter();
        topics
            .filter(|(_, owner)| *owner == service)
            .map(|(topic, _)| *topic)
            .collect()
    }

    /// Whether records without a signature are taken wherever they are.
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

    /// The record with its signature if it is on a topic of the service's own.
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

    /// The signatures of records that are published together; [`super::MOST_TOGETHER`] at most.
    #[must_use]
    pub fn sign_together(&self, records: &[Record<'_>]) -> Vec<String> {
        let leaves: Vec<Leaf> = records.iter().map(canonical::of_record).collect();
        self.sign(&leaves)
    }

    /// What is signed of a record.
    pub(crate) fn leaf(record: &Record<'_>) -> Leaf {
        canonical::of_record(record)
    }

    /// Signs records together that have these leaves; [`super::MOST_TOGETHER`] at most.
    pub(crate) fn sign(&self, leaves: &[Leaf]) -> Vec<String> {
        signature::sign(&self.0.key, leaves)
    }

    /// What is pinned of a service.
    #[must_use]
    pub fn signer(&self, service: &str) -> Option<Signer> {
        self.pinned(|pinned| pinned.get(service).cloned())
    }

    fn pinned<T>(&self, read: impl FnOnce(&BTreeMap<String, Signer>) -> T) -> T {
        read(&self.0.pinned.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on a service is known by this.
    pub fn trust(&self, service: &str, signer: Signer) {
        let mut pinned = self
            .0
            .pinned
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        pinned.insert(service.to_owned(), signer);
    }

    /// From now on a claim need only be signed by a key that it names itself: an operator says that the known one is lost.
    pub(crate) fn believe_claims(&self) {
        self.0.believes_claims.store(true, Ordering::Relaxed);
    }

    /// Whether that was said.
    pub(crate) fn believes_claims(&self) -> bool {
        self.0.believes_claims.load(Ordering::Relaxed)
    }

    /// The keys that the settings name for a service.
    pub(crate) fn given(&self, service: &str) -> &[VerifyingKey] {
        self.0.given.get(service).map_or(&[], Vec::as_slice)
    }

    /// What a store has pinned of a service.
    ///
    /// # Errors
    /// When the store does not answer, or what it answers cannot be read.
    pub(crate) async fn recall(
        registry: &dyn Registry,
        service: &str,
    ) -> Result<Option<Signer>, StoreError> {
        let text = registry.recall(&name(service)).await?;
        text.map(|text| parse(service, &text)).transpose()
    }

    /// Pins a service in a store, where nothing is pinned yet; answers what is pinned then.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn pin(
        registry: &dyn Registry,
        service: &str,
        signer: &Signer,
    ) -> Result<Signer, StoreError> {
        let pinned = registry.remember(&name(service), &text(signer)?).await?;
        parse(service, &pinned)
    }

    /// Pins a service anew, whatever was pinned.
    ///
    /// # Errors
    /// As [`Self::recall`].
    pub(crate) async fn pin_anew(
        registry: &dyn Registry,
        service: &str,
        signer: &Signer,
    ) -> Result<(), StoreError> {
        registry.note(&name(service), &text(signer)?).await
    }

    /// Judges a record that was read. Where nothing is known of the service whose topic it is, and no key of it was given, everything is taken,
    /// as before there were signatures.
    ///
    /// # Errors
    /// Why it is not the service's.
    pub fn judge(&self, message: &Message) -> Result<(), Unverified> {
        let Some(owner) = self.owner(&message.topic) else {
            return Ok(());
        };
        let given = self.given(owner);
        self.pinned(|pinned| {
            let signer = pinned.get(owner);
            let Some(signed) = signature_of(message)? else {
                let may_lack = self.0.accepts_unsigned
                    || signer.map_or(given.is_empty(), |signer| signer.may_lack(message));
                return if may_lack {
                    Ok(())
                } else {
                    Err(Unverified::Missing(owner.to_owned()))
                };
            };
            let pinned = signer.map_or(&[][..], |signer| signer.keys.as_slice());
            if pinned.is_empty() && given.is_empty() {
                return Ok(());
            }
            self.verify(owner, &signed, message, pinned.iter().chain(given))
        })
    }

    /// Judges a record by these keys of a service alone: it must be signed by one of them.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn judge_by(
        &self,
        service: &str,
        message: &Message,
        keys: &[VerifyingKey],
    ) -> Result<(), Unverified> {
        match signature_of(message)? {
            None => Err(Unverified::Missing(service.to_owned())),
            Some(signed) => self.verify(service, &signed, message, keys.iter()),
        }
    }

    fn verify<'a>(
        &self,
        service: &str,
        signed: &Signature,
        message: &Message,
        keys: impl Iterator<Item = &'a VerifyingKey>,
    ) -> Result<(), Unverified> {
        let key = key_of(service, signed, keys)?;
        let root = signed.root(canonical::of_message(message));
        let said = signed.of_root(root);
        if self.good().get(&said).is_some() {
            return Ok(());
        }
        if !signed.is_of(&root, key) {
            return Err(Unverified::Changed);
        }
        self.good().put(said, ());
        Ok(())
    }

    fn good(&self) -> std::sync::MutexGuard<'_, LruCache<Signed, ()>> {
        self.0.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record that is refused for this reason is to be judged once more after [`Self::look_again`]: it is signed by a key of another
    /// service that is not known, and a claim may tell of it that was not read yet.
    pub(crate) fn is_doubtful(&self, reason: &Unverified, clock: &Clock) -> bool {
        matches!(reason, Unverified::OtherKey { service, .. } if service != self.0.service)
            && self.0.looks.may_ask(clock)
    }

    /// Waits until all claims that there are now have been read and believed or not, 5 s at most.
    pub(crate) async fn look_again(&self, clock: &Clock) {
        self.0.looks.ask(clock).await;
    }

    /// Told of each look at the claims that is asked for. As long as such a receiver lives somebody has to make them, each to be followed by
    /// [`Self::looked`].
    pub(crate) fn looks(&self) -> watch::Receiver<u64> {
        self.0.looks.asked()
    }

    /// Says that all claims were read after this look was asked for.
    pub(crate) fn looked(&self, asked: u64) {
        self.0.looks.made(asked);
    }

    /// Marks a record that is not to be taken, and removes such a mark that it brought along.
    pub fn mark(&self, message: &mut Message) {
        let judged = self.judge(message);
        Self::put_mark(message, judged);
    }

    /// The same, but for a record that is [doubtful](Self::is_doubtful), which stays as it is: then the answer is false.
    pub(crate) fn mark_undoubted(&self, message: &mut Message, clock: &Clock) -> bool {
        let judged = self.judge(message);
        if let Err(reason) = &judged
            && self.is_doubtful(reason, clock)
        {
            return false;
        }
        Self::put_mark(message, judged);
        true
    }

    fn put_mark(message: &mut Message, judged: Result<(), Unverified>) {
        let is_mark = |name: &str| name.eq_ignore_ascii_case(cloudevents::REFUSED);
        message.headers.retain(|(name, _)| !is_mark(name));
        if let Err(reason) = judged
            && !fault::is_on(Fault::SignatureNotChecked)
        {
            metrics::counter!("events_refused_total", "topic" => message.topic.clone())
                .increment(1);
            let reason = reason.to_string().into_bytes();
            message
                .headers
                .push((cloudevents::REFUSED.to_owned(), reason));
        }
    }
}

/// The signature that a record brings, if it does.
fn signature_of(message: &Message) -> Result<Option<Signature>, Unverified> {
    let mut signatures = message
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case(SIGNATURE));
    let Some((_, text)) = signatures.next() else {
        return Ok(None);
    };
    if signatures.next().is_some() {
        return Err(Unverified::Twice);
    }
    Signature::parse(text).map(Some)
}

fn text(signer: &Signer) -> Result<String, StoreError> {
    serde_json::to_string(signer).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn parse(service: &str, text: &str) -> Result<Signer, StoreError> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Corrupt(format!("{} cannot be read: {error}", name(service))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_model::message::Position;

    use super::*;

    const TOPICS: Topics = &[
        ("changes", "accounts"),
        ("keys", "accounts"),
        ("orders", "orders"),
    ];

    fn signatures(service: &'static str, seed: u8) -> Signatures {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap();
        Signatures::new(service, key, TOPICS, &SigningSettings::default())
    }

    /// Accounts, and orders, which knows accounts and asks for signatures from offset 5 of partition 0 of `changes` on.
    fn both() -> (Signatures, Signatures) {
        let (accounts, orders) = (signatures("accounts", 1), signatures("orders", 2));
        orders.trust(
            "accounts",
            Signer {
                keys: vec![*accounts.verifying()],
                from: [("changes".to_owned(), [(0, 5)].into())].into(),
            },
        );
        (accounts, orders)
    }

    fn read(record: Record<'_>, partition: i32, offset: i64) -> Message {
        Message {
            topic: record.topic.to_owned(),
            position: Position { partition, offset },
            key: Some(record.key.to_owned()),
            headers: record
                .headers
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value.into_owned()))
                .collect(),
            payload: record.payload.map(<[u8]>::to_vec),
            published_ms: None,
        }
    }

    fn change<'a>(payload: Option<&'a [u8]>) -> Record<'a> {
        let mut record = Record::new("changes", "1", payload);
        record.headers.push(("ce_id", b"7".as_slice().into()));
        record
    }

    #[test]
    fn what_the_service_signed_is_taken_as_it_is_alone() {
        let (accounts, orders) = both();
        let good = read(accounts.signed(change(Some(b"{\"revision\":1}"))), 0, 9);
        assert_eq!(orders.judge(&good), Ok(()));
        let changed = |change: fn(&mut Message)| {
            let mut message = good.clone();
            change(&mut message);
            orders.judge(&message)
        };
        let is_changed = Err(Unverified::Changed);
        assert_eq!(
            changed(|it| it.payload = Some(b"{\"revision\":50}".to_vec())),
            is_changed
        );
        assert_eq!(changed(|it| it.payload = None), is_changed);
        assert_eq!(changed(|it| it.key = Some("2".to_owned())), is_changed);
        assert_eq!(changed(|it| it.key = None), is_changed);
        assert_eq!(changed(|it| it.topic = "keys".to_owned()), is_changed);
        assert_eq!(changed(|it| it.headers[0].1 = b"8".to_vec()), is_changed);
        assert_eq!(
            changed(|it| it.headers.push(("ce_type".to_owned(), Vec::new()))),
            is_changed
        );
        assert_eq!(
            changed(|it| it.headers.push(it.headers[1].clone())),
            Err(Unverified::Twice)
        );
        // Where it lies, and what mirrors add, says nothing.
        assert_eq!(changed(|it| it.position.partition = 3), Ok(()));
        assert_eq!(
            changed(|it| it.headers.push(("mirror".to_owned(), Vec::new()))),
            Ok(())
        );
    }

    #[test]
    fn a_tombstone_is_signed_like_everything_else() {
        let (accounts, orders) = both();
        let tombstone = || Record::new("keys", "1", None);
        assert_eq!(
            orders.judge(&read(accounts.signed(tombstone()), 0, 0)),
            Ok(())
        );
        let missing = Err(Unverified::Missing("accounts".to_owned()));
        assert_eq!(orders.judge(&read(tombstone(), 0, 0)), missing);
        let of_another = read(accounts.signed(Record::new("keys", "2", None)), 0, 0);
        let replayed = Message {
            key: Some("3".to_owned()),
            ..of_another
        };
        assert_eq!(orders.judge(&replayed), Err(Unverified::Changed));
    }

    #[test]
    fn a_right_record_with_another_ones_signature_is_refused_whatever_was_judged_before() {
        let (accounts, orders) = both();
        let tombstone = |subject| read(accounts.signed(Record::new("keys", subject, None)), 0, 0);
        let (right, other) = (tombstone("1"), tombstone("2"));
        assert_eq!(orders.judge(&right), Ok(()));
        assert_eq!(orders.judge(&other), Ok(()));
        // When compaction leaves it alone, whoever begins to read then has nothing else to go by.
        let forged = Message {
            headers: other.headers,
            ..right
        };
        assert_eq!(orders.judge(&forged), Err(Unverified::Changed));
    }

    #[test]
    fn no_other_service_signs_in_this_ones_name() {
        let (_, orders) = both();
        let forged = signatures("accounts", 2).signed(change(Some(b"{}")));
        let forged = read(forged, 0, 9);
        assert!(matches!(
            orders.judge(&forged),
            Err(Unverified::OtherKey { .. })
        ));
        // Even where there need not be a signature yet.
        let early = Message {
            position: Position {
                partition: 0,
                offset: 0,
            },
            ..forged
        };
        assert!(matches!(
            orders.judge(&early),
            Err(Unverified::OtherKey { .. })
        ));
        assert!(
            orders.signed(change(Some(b"{}"))).headers.len() == 1,
            "it does not sign there at all"
        );
    }

    #[test]
    fn what_is_older_than_signatures_needs_none() {
        let (_, orders) = both();
        let at = |partition, offset| orders.judge(&read(change(Some(b"{}")), partition, offset));
        assert_eq!(at(0, 4), Ok(()));
        assert!(at(0, 5).is_err());
        assert!(
            at(1, 0).is_err(),
            "a partition that was added later is signed from its beginning on"
        );
        let nobody = signatures("orders", 2);
        assert_eq!(
            nobody.judge(&read(change(None), 0, 99)),
            Ok(()),
            "nothing is known of accounts yet"
        );
    }

    #[test]
    fn a_group_of_records_is_verified_once_and_each_record_still_by_itself() {
        let (accounts, orders) = both();
        let bodies: Vec<Vec<u8>> = (0..20).map(|body| vec![body]).collect();
        let records: Vec<Record<'_>> = bodies.iter().map(|body| change(Some(body))).collect();
        let leaves: Vec<Leaf> = records.iter().map(Signatures::leaf).collect();
        let mut messages: Vec<Message> = records
            .into_iter()
            .zip(accounts.sign(&leaves))
            .map(|(mut record, signature)| {
                record
                    .headers
                    .push((SIGNATURE, signature.into_bytes().into()));
                read(record, 0, 9)
            })
            .collect();
        assert!(messages.iter().all(|message| orders.judge(message).is_ok()));
        assert_eq!(orders.good().len(), 1);
        messages[3].payload = Some(vec![99]);
        assert_eq!(orders.judge(&messages[3]), Err(Unverified::Changed));
    }

    #[test]
    fn a_mark_that_came_along_is_not_believed() {
        let (accounts, orders) = both();
        let mut good = read(accounts.signed(change(Some(b"{}"))), 0, 9);
        good.headers
            .push(("Tandem-Refused".to_owned(), b"no".to_vec()));
        orders.mark(&mut good);
        assert_eq!(good.header(cloudevents::REFUSED), None);
        let mut forged = read(change(Some(b"{}")), 0, 9);
        orders.mark(&mut forged);
        assert!(
            forged
                .header(cloudevents::REFUSED)
                .unwrap()
                .contains("ce_tandemsignature is missing")
        );
        assert!(cloudevents::read(&forged).unwrap_err().stands_alone);
    }

    #[test]
    fn keys_that_a_setting_names_count_beside_the_pinned_ones() {
        let accounts = signatures("accounts", 1);
        let settings = SigningSettings {
            trusted_signers: vec![
                format!("accounts={}", accounts.verifying())
                    .parse()
                    .unwrap(),
            ],
            accept_unsigned: true,
            ..SigningSettings::default()
        };
        let key = SigningKey::from_seed(&[2; 32]).unwrap();
        let orders = Signatures::new("orders", key, TOPICS, &settings);
        orders.trust("accounts", Signer::default());
        assert_eq!(
            orders.judge(&read(accounts.signed(change(None)), 0, 0)),
            Ok(())
        );
        assert_eq!(
            orders.judge(&read(change(None), 0, 0)),
            Ok(()),
            "told to take what is not signed"
        );
        let forged = signatures("accounts", 3).signed(change(None));
        assert!(orders.judge(&read(forged, 0, 0)).is_err());
    }
}
