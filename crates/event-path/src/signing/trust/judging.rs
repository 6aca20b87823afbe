//! Judges records that are read by who has signed them, and marks those that are not to be taken.

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
            self.verify(owner, &signed, message, signer, pinned.iter().chain(given))
        })
    }

    /// Judges a record before the claims were: `None` where nothing is pinned of the service whose topic it is, or an operator has said that what is
    /// pinned does not count.
    pub(crate) fn judge_by_pinned(&self, message: &Message) -> Option<Result<(), Unverified>> {
        let owner = self.owner(&message.topic)?;
        let is_pinned = !self.believes_claims() && self.pinned(|pinned| pinned.contains_key(owner));
        is_pinned.then(|| self.judge(message))
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
            Some(signed) => self.verify(service, &signed, message, None, keys.iter()),
        }
    }

    /// Judges a record by what a claim says of a service: it must be signed by one of its keys that counts there.
    ///
    /// # Errors
    /// Why it is not.
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
