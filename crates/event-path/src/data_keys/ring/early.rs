//! Accepts keys before the claims are judged, if signers that the store has pinned have signed them. The newest claim
//! may be the last record of the topic. Without this, a start would hold all records in memory until then, which
//! takes six times as much memory as the keys.

use super::KeyRing;
use crate::data_keys::held::Held;

impl KeyRing {
    /// Applies the waiting records in order, up to the first one that no pinned signer has signed. So the order
    /// within each subject is kept.
    pub(super) fn take_early(&self) {
        let Some(signing) = &self.0.signing else {
            return;
        };
        loop {
            let mut held = self.held();
            if held.is_looking || held.is_front_doubtful {
                return;
            }
            let Some(message) = held.unjudged.front() else {
                return;
            };
            match signing.signatures.judge_by_pinned(message) {
                // A signer may be pinned soon.
                None => return,
                Some(Err(_)) => {
                    held.is_front_doubtful = true;
                    return;
                }
                Some(Ok(())) => {}
            }
            if held.early.is_none() {
                held.early = signing.signatures.signer_of(self.0.topic);
            }
            let Some(message) = held.unjudged.pop_front() else {
                return;
            };
            let Some(subject) = message.key.as_deref() else {
                continue;
            };
            let is_revived = held.take(self.0.topic, subject, &message);
            drop(held);
            if is_revived {
                self.put_right(subject);
            }
        }
    }

    /// Called when the claims are judged. If records were accepted early by a key that does not count any more, the
    /// whole topic is read again.
    pub(super) fn judge_early(&self, held: &mut Held) {
        held.is_front_doubtful = false;
        let (Some(signing), Some(early)) = (&self.0.signing, held.early.take()) else {
            return;
        };
        let now = signing.signatures.signer_of(self.0.topic);
        let mut counted = early.keys.iter().filter(|key| !early.was_replaced(key));
        if !now.is_some_and(|now| counted.all(|key| now.signs_with(key))) {
            tracing::info!(
                topic = self.0.topic,
                "a signing key was given up since the last start; the topic is read again"
            );
            held.read_again();
        }
    }
}
