//! Opens what is sealed in events, and says of each subject whether its key is here, missing or erased.

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
        let mut wrapped: Vec<(String, String)> = known.wrapped.into_iter().collect();
        if !self.service.older().is_empty() {
            // To wrap anew takes chance: in an order that is the same every time.
            wrapped.sort_unstable();
        }
        for (subject, wrapped) in wrapped {
            let opened = DataKey::unwrap(&self.service, &wrapped, &subject)
                .and_then(|key| Ok((key, DataKey::for_writing(&self.service, wrapped, &subject)?)));
            match opened {
                Ok(opened) => {
                    keys.open.insert(subject, opened);
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
        // A key that another sealing key wrapped, and one that has not come, are missing; the others are answered.
        assert!(matches!(keys.of("other"), Key::Missing(reason) if reason.contains("sealing key")));
        assert!(matches!(keys.of("unheard"), Key::Missing(NOT_COME)));
    }
}
