//! The last failure of the file itself, such as a full disk, until a similar write succeeds again.

use std::sync::{Arc, Mutex, PoisonError};

use tandem_event_path::store::{Outcome, StoreError};

/// The last failure, unless it is over. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct LastFailure(Arc<Mutex<Option<StoreError>>>);

impl LastFailure {
    pub(super) fn get(&self) -> Option<StoreError> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set(&self, failure: Option<StoreError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Records the result of a command's write. A write that was refused says nothing about the file.
    pub(super) fn note(&self, ended: &Result<Outcome, StoreError>) {
        match ended {
            Ok(Outcome::Written) => self.set(None),
            Err(failure @ StoreError::Unavailable(_)) => self.set(Some(failure.clone())),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_over_when_a_command_has_been_written() {
        let last = LastFailure::default();
        last.note(&Err(StoreError::Unavailable(
            "no space left on device".to_owned(),
        )));
        assert!(last.get().is_some());
        last.note(&Ok(Outcome::Stale));
        last.note(&Ok(Outcome::KeyTaken));
        assert!(last.get().is_some(), "nothing was written");
        last.note(&Ok(Outcome::Written));
        assert!(last.get().is_none());
    }
}
