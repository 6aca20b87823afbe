//! Opens sealed parts of events, and reports for each subject whether its key is available, missing or erased.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tandem_model::seal::Key;
use tandem_runtime::clock::Clock;

use super::{DataKey, DataKeys, Known};
use crate::{
    fault::{self, Fault},
    sealing::{OpenError, Sealer},
    store::StoreError,
};

/// The reason for a missing key that no source knows.
const NOT_COME: &str = "the key is not on the topic of keys";

/// An event that cannot be opened now, and so waits: names the subject whose key it needs, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("waits for the data key of {subject:?}: {reason}")]
pub struct Unopened {
    /// The subject whose key is needed.
    pub subject: String,
    /// Why the event cannot be opened.
    pub reason: String,
}

/// The keys of some subjects.
#[derive(Debug, Default)]
pub struct Keys {
    open: HashMap<String, (DataKey, String)>,
    erased: HashSet<String>,
    /// Subjects whose wrapped key does not open, each with the reason.
    shut: HashMap<String, String>,
}

impl Keys {
    /// The state of this subject's key.
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

    /// Adds the keys of `other`.
    pub fn extend(&mut self, other: Self) {
        self.open.extend(other.open);
        self.erased.extend(other.erased);
        self.shut.extend(other.shut);
    }
}

/// Opens sealed parts of events. Clones share the source of keys.
#[derive(Clone)]
pub struct Opener {
    keys: Arc<dyn DataKeys>,
    service: Sealer,
}

impl Opener {
    /// An opener for keys that `service` wrapped.
    #[must_use]
    pub fn new(keys: Arc<dyn DataKeys>, service: Sealer) -> Self {
        Self { keys, service }
    }

    /// The keys of subjects whose data is sealed.
    ///
    /// # Errors
    /// When the sources of keys are unavailable.
    pub async fn keys_of(&self, subjects: &HashSet<String>) -> Result<Keys, StoreError> {
        if subjects.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.unwrapped(self.keys.of_sealed(subjects).await?))
    }

    /// The existing keys of subjects whose data is not sealed now, but may have been sealed before.
    ///
    /// # Errors
    /// When the sources of keys are unavailable.
    pub async fn known_keys_of(&self, subjects: &HashSet<String>) -> Result<Keys, StoreError> {
        if subjects.is_empty() {
            return Ok(Keys::default());
        }
        Ok(self.unwrapped(self.keys.of_plain(subjects).await?))
    }

    /// Whether anything is known so far about one of these subjects. Asks no other component.
    #[must_use]
    pub fn shows_any(&self, subjects: &HashSet<String>) -> bool {
        self.keys.shows_any(subjects)
    }

    fn unwrapped(&self, known: Known) -> Keys {
        let mut keys = Keys {
            erased: known.erased,
            ..Keys::default()
        };
        let mut wrapped: Vec<(String, String)> = known.wrapped.into_iter().collect();
        if !self.service.older().is_empty() {
            // Wrapping a key again draws random bytes. A sorted order makes simulations reproducible.
            wrapped.sort_unstable();
        }
        for (subject, wrapped) in wrapped {
            let opened = DataKey::unwrap(&self.service, &wrapped, &subject)
                .and_then(|key| Ok((key, DataKey::for_writing(&self.service, wrapped, &subject)?)));
            match opened {
                Ok(opened) => {
                    keys.open.insert(subject, opened);
                }
                // The key was wrapped with another sealing key. The customer must not count as erased, and the other
                // subjects must not be held up.
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

    /// Unwraps the key of this subject.
    ///
    /// # Errors
    /// When it was wrapped with the key of another service, or for another subject.
    pub fn unwrap(&self, wrapped: &str, subject: &str) -> Result<DataKey, OpenError> {
        DataKey::unwrap(&self.service, wrapped, subject)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::data_keys::FixedKeys;

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
        // A key wrapped with another sealing key is missing, and so is one that has not arrived. The others are
        // found.
        assert!(matches!(keys.of("other"), Key::Missing(reason) if reason.contains("sealing key")));
        assert!(matches!(keys.of("unheard"), Key::Missing(NOT_COME)));
    }
}
