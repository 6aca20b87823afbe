//! The subjects whose data keys did not open at the last try. Health reports them, because no event waits for such a
//! key.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Sealer;

/// Most subjects that are remembered. With a wrong sealing key, no data key opens.
const MOST: usize = 1_000;

/// Subjects whose data keys did not open. Clones share the set.
#[derive(Clone, Debug, Default)]
pub(super) struct UnopenedKeys(Arc<Mutex<BTreeSet<String>>>);

impl UnopenedKeys {
    fn subjects(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sealer {
    /// The subjects whose data keys did not open at the last try, 1000 at most. Only a sealer that names its key tracks
    /// them.
    #[must_use]
    pub fn unopened(&self) -> BTreeSet<String> {
        let unopened = self.unopened.as_ref();
        unopened.map_or_else(BTreeSet::new, |unopened| unopened.subjects().clone())
    }

    /// Notes whether a subject's data key opened.
    pub(crate) fn note_opened(&self, subject: &str, is_open: bool) {
        let Some(unopened) = &self.unopened else {
            return;
        };
        let mut subjects = unopened.subjects();
        if is_open {
            subjects.remove(subject);
        } else if subjects.len() < MOST && !subjects.contains(subject) {
            tracing::error!(
                subject,
                "a data key does not open with the sealing keys that were given"
            );
            subjects.insert(subject.to_owned());
        }
    }
}
