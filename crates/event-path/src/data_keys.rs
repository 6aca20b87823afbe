//! Data keys: each customer has a key of their own, which seals all personal data of that customer in the log.
//! Destroying the key makes this data unreadable, even in an immutable log.
//!
//! A key is published on a compacted topic, wrapped: sealed with the sealing key of the services. The tombstone of a
//! key is the erasure of its customer. A [`KeyRing`] holds the contents of that topic.

mod held;
mod keys_read;
mod opener;
mod ring;

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tandem_model::seal::Seals;

use crate::{
    fault::{self, Fault},
    outbox::Companion,
    sealing::{OpenError, Sealer},
    store::StoreError,
};

pub use held::OnTopic;
pub use opener::{Keys, Opener, Unopened};
pub use ring::{KeyMemory, KeyRing, RingPorts, Role};

/// The key that seals the data of one subject.
#[derive(Clone, Debug)]
pub struct DataKey(Sealer);

fn place(subject: &str) -> String {
    format!("data-key/{subject}")
}

impl DataKey {
    /// Makes a new key. Returns it together with its wrapped form.
    #[must_use]
    pub fn make(service: &Sealer, subject: &str) -> (Self, String) {
        let key = service.fresh_key();
        let wrapped = service.seal(&key, place(subject).as_bytes());
        (Self(Sealer::new(&key)), wrapped)
    }

    /// Unwraps the key of this subject.
    ///
    /// # Errors
    /// When it was wrapped with the key of another service, or for another subject.
    pub fn unwrap(service: &Sealer, wrapped: &str, subject: &str) -> Result<Self, OpenError> {
        let opened = service.open(wrapped, place(subject).as_bytes());
        let key: Result<[u8; 32], OpenError> =
            opened.and_then(|key| key.try_into().map_err(|_| OpenError::Malformed));
        service.note_opened(subject, key.is_ok());
        Ok(Self(Sealer::new(&key?)))
    }

    /// The same key, wrapped with the newest sealing key; `None` if it is wrapped with that one already.
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

    /// The wrapped key to write. While the sealing key is being replaced, this is the key wrapped with the newest
    /// sealing key. Otherwise a writer that decided on older state could write a key that needs the older sealing
    /// key again, after the replacement has stopped looking for such keys.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    pub fn for_writing(
        service: &Sealer,
        wrapped: String,
        subject: &str,
    ) -> Result<String, OpenError> {
        if service.older().is_empty() || fault::is_on(Fault::SealedAsBefore) {
            return Ok(wrapped);
        }
        Ok(Self::rewrap(service, &wrapped, subject)?.unwrap_or(wrapped))
    }

    /// Whether a reader of `published` can read everything that `stored` opens, both now and after the older sealing
    /// keys are gone. If `stored` does not open, there is nothing better than `published`, so the answer is yes.
    #[must_use]
    pub fn does_as_well(service: &Sealer, published: &str, stored: &str, subject: &str) -> bool {
        if published == stored {
            return true;
        }
        let open = |wrapped| Self::unwrap(service, wrapped, subject).ok();
        let is_newest = |wrapped| matches!(Self::rewrap(service, wrapped, subject), Ok(None));
        match (open(published), open(stored)) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(published_key), Some(stored_key)) => {
                published_key.0.fingerprint() == stored_key.0.fingerprint()
                    && (is_newest(published) || !is_newest(stored))
            }
        }
    }

    /// Seals `plain`, bound to a place.
    #[must_use]
    pub fn seal(&self, plain: &[u8], place: &str) -> String {
        self.0.seal(plain, place.as_bytes())
    }

    /// Opens data that was sealed for this place.
    ///
    /// # Errors
    /// When it was sealed with another key or for another place, or was changed.
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

/// The message that publishes a key. If `wrapped` is `None`, it is the tombstone that erases the key.
#[must_use]
pub fn publication(topic: &str, subject: &str, wrapped: Option<&str>) -> Companion {
    Companion {
        topic: topic.to_owned(),
        key: subject.to_owned(),
        payload: wrapped.map(|wrapped| serde_json::json!({ "wrapped": wrapped }).to_string()),
    }
}

/// What is known about the keys of subjects. A subject in neither part is unknown: its key has not arrived yet. That
/// says nothing about the subject, however much time has passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Wrapped keys by subject.
    pub wrapped: HashMap<String, String>,
    /// Erased subjects: the topic of keys shows the tombstone, or the store holds the erasure.
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

/// A source of wrapped keys.
#[async_trait]
pub trait DataKeys: Send + Sync + 'static {
    /// Looks up subjects whose data is sealed.
    ///
    /// # Errors
    /// When the sources of keys are unavailable.
    async fn of_sealed(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;

    /// Looks up subjects whose data is not sealed now, but may have been sealed before. Does not wait for keys that
    /// are on their way.
    ///
    /// # Errors
    /// When the sources of keys are unavailable.
    async fn of_plain(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;

    /// Whether anything is known so far about one of these subjects. Asks no other component.
    fn shows_any(&self, subjects: &HashSet<String>) -> bool;
}

/// The keys in the service's own store. The store holds the wrapped key of every customer that it has read. So a
/// topic of keys that was lost, or that arrives later than the events, hides no customer that the store knows.
#[async_trait]
pub trait StoredKeys: Send + Sync + 'static {
    /// The stored keys and erasures of these subjects.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;
}

/// A fixed set of keys, for tests and for services that seal nothing.
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

    #[test]
    fn whose_key_does_not_open_is_told_until_it_does() {
        let (_, wrapped) = DataKey::make(&Sealer::replacing(&[7; 32], &[]), "1");
        let (_, newer) = DataKey::make(&Sealer::replacing(&[8; 32], &[]), "1");
        let service = Sealer::replacing(&[7; 32], &[]);
        assert!(service.unopened().is_empty());
        assert!(DataKey::unwrap(&service.clone(), &newer, "1").is_err());
        assert_eq!(service.unopened(), ["1".to_owned()].into());
        DataKey::unwrap(&service, &wrapped, "1").unwrap();
        assert!(service.unopened().is_empty());
    }

    #[test]
    fn a_published_key_does_if_it_opens_the_same_and_will_when_older_sealing_keys_are_gone() {
        let older = Sealer::new(&[7; 32]);
        let both = Sealer::replacing(&[8; 32], &[[7; 32]]);
        let newer = Sealer::new(&[8; 32]);
        let (_, old) = DataKey::make(&older, "1");
        let (_, another) = DataKey::make(&newer, "1");
        let rewrapped = || DataKey::rewrap(&both, &old, "1").unwrap().unwrap();
        let (new, again) = (rewrapped(), rewrapped());
        assert_ne!(new, again);
        for service in [&both, &newer] {
            assert!(DataKey::does_as_well(service, &new, &again, "1"));
            assert!(!DataKey::does_as_well(service, &old, &new, "1"));
            assert!(!DataKey::does_as_well(service, &another, &new, "1"));
            assert!(!DataKey::does_as_well(service, "forged", &new, "1"));
            assert!(DataKey::does_as_well(service, &new, "unreadable", "1"));
        }
        // While the sealing key is replaced, the new wrapping is published before it is stored.
        assert!(DataKey::does_as_well(&both, &new, &old, "1"));
    }
}
