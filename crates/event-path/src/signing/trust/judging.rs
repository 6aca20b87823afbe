//! Judges records by their signatures, and marks those that are refused.

use std::sync::{MutexGuard, PoisonError};

use lru::LruCache;
use tandem_model::{cloudevents, message::Message};
use tandem_runtime::clock::Clock;
use tokio::sync::watch;

use super::Signatures;
use crate::{
    fault::{self, Fault},
    refused_records,
    signing::{
        canonical,
        key::VerifyingKey,
        signature::{Signature, Signed, Unverified},
        signer::{Signer, key_of, signature_of},
    },
};

impl Signatures {
    /// Judges a record that was read. If nothing is pinned for the service that owns the topic and the settings give no
    /// key of it, every record is accepted, as before signatures existed.
    ///
    /// # Errors
    /// Why the record does not count as one of the service.
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
            self.verify(owner, &signed, message, signer, pinned.iter().chain(given))
        })
    }

    /// Judges a record before the claims are read. `None` if nothing is pinned for the service that owns the topic, or
    /// if an operator has said that the pinned keys do not count.
    pub(crate) fn judge_by_pinned(&self, message: &Message) -> Option<Result<(), Unverified>> {
        let owner = self.owner(&message.topic)?;
        let is_pinned = !self.believes_claims() && self.pinned(|pinned| pinned.contains_key(owner));
        is_pinned.then(|| self.judge(message))
    }

    /// Judges a record by these keys of a service only. It must be signed with one of them.
    ///
    /// # Errors
    /// Why the record does not count as one of the service.
    pub(crate) fn judge_by(
        &self,
        service: &str,
        message: &Message,
        keys: &[VerifyingKey],
    ) -> Result<(), Unverified> {
        match signature_of(message)? {
            None => Err(Unverified::Missing(service.to_owned())),
            Some(signed) => self.verify(service, &signed, message, None, keys.iter()),
        }
    }

    /// Judges a record by what a claim says about a service. It must be signed with a key that counts at its position.
    ///
    /// # Errors
    /// Why the record does not count as one of the service.
    pub(crate) fn judge_by_signer(
        &self,
        service: &str,
        message: &Message,
        signer: &Signer,
    ) -> Result<(), Unverified> {
        match signature_of(message)? {
            None => Err(Unverified::Missing(service.to_owned())),
            Some(signed) => {
                self.verify(service, &signed, message, Some(signer), signer.keys.iter())
            }
        }
    }

    fn verify<'a>(
        &self,
        service: &str,
        signed: &Signature,
        message: &Message,
        signer: Option<&Signer>,
        keys: impl Iterator<Item = &'a VerifyingKey>,
    ) -> Result<(), Unverified> {
        let key = key_of(service, signed, keys)?;
        if signer.is_some_and(|signer| !signer.counts(key, message)) {
            return Err(Unverified::replaced(key, service));
        }
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

    fn good(&self) -> MutexGuard<'_, LruCache<Signed, ()>> {
        self.0.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a record that is refused for this reason must be judged again after [`Self::look_again`]. It is signed
    /// with an unknown key of another service, and a claim that was not read yet may announce that key.
    pub(crate) fn is_doubtful(&self, reason: &Unverified, clock: &Clock) -> bool {
        matches!(reason, Unverified::OtherKey { service, .. } if service != self.0.service)
            && self.0.looks.may_ask(clock)
    }

    /// Waits until all claims in the log have been read and judged, 5 s at most.
    pub(crate) async fn look_again(&self, clock: &Clock) {
        self.0.looks.ask(clock).await;
    }

    /// A receiver that gets each request for a look at the claims. While it lives, its owner must make these looks, and
    /// call [`Self::looked`] after each.
    pub(crate) fn looks(&self) -> watch::Receiver<u64> {
        self.0.looks.asked()
    }

    /// Notes that all claims were read after this request for a look.
    pub(crate) fn looked(&self, asked: u64) {
        self.0.looks.made(asked);
    }

    /// Marks a record that is refused. Removes such a mark if the record came with one.
    pub fn mark(&self, message: &mut Message) {
        let judged = self.judge(message);
        Self::put_mark(message, judged);
    }

    /// The same, except that it leaves a [doubtful](Self::is_doubtful) record unchanged and returns false.
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
            refused_records::count(message.topic.clone());
            let reason = reason.to_string().into_bytes();
            message
                .headers
                .push((cloudevents::REFUSED.to_owned(), reason));
        }
    }
}

#[cfg(test)]
mod tests;
