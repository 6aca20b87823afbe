//! Data keys: one key for each customer, which seals everything personal in the log. Destroying the key makes it
//! unreadable, even in an immutable log.
//!
//! A key is published wrapped (sealed with the key of the services) on a compacted topic; its tombstone is the erasure.
//! A [`KeyRing`] holds what that topic says.

mod held;
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
pub use ring::{KeyRing, Role};

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
        let opened = service.open(wrapped, place(subject).as_bytes());
        let key: Result<[u8; 32], OpenError> =
            opened.and_then(|key| key.try_into().map_err(|_| OpenError::Malformed));
        service.note_opened(subject, key.is_ok());
        Ok(Self(Sealer::new(&key?)))
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

    /// What is to be written of a wrapped key: while the sealing key is being replaced, what the newest has wrapped. Whoever decided by a state from
    /// before would otherwise bring back what needs the older one, when nobody looks for that any more.
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

    /// Whether whoever has `published` can read what `stored` opens, now and when older sealing keys are gone. Of a `stored` that does not open
    /// nothing better is known, so then the answer is yes.
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

/// What a service's own store knows of keys: it holds the wrapped key of every customer that it has read, so a topic of keys that was
/// lost, or comes later than the events, hides nobody who is known here.
#[async_trait]
pub trait StoredKeys: Send + Sync + 'static {
    /// What is stored of these subjects.
    ///
    /// # Errors
    /// When the store does not answer.
    async fn stored(&self, subjects: &HashSet<String>) -> Result<Known, StoreError>;
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
        // The topic is told before the store while the sealing key is replaced.
        assert!(DataKey::does_as_well(&both, &new, &old, "1"));
    }
}
