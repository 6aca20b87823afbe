//! A service whose signatures count: its verifying keys, and from where on its records must be signed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    SIGNATURE, canonical,
    key::VerifyingKey,
    signature::{Signature, Unverified},
};
use crate::log::Offsets;
use tandem_model::message::Message;

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
    pub(super) fn may_lack(&self, message: &Message) -> bool {
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
pub(super) fn key_of<'a>(
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

/// The signature that a record brings, if it does.
pub(super) fn signature_of(message: &Message) -> Result<Option<Signature>, Unverified> {
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
