//! A service whose signatures count: its verifying keys, and the offsets from which its records must be signed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    SIGNATURE, canonical,
    key::VerifyingKey,
    signature::{Signature, Unverified, hexadecimal},
};
use crate::log::Offsets;
use tandem_model::message::Message;

/// A service whose signatures count, as a store pins it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signer {
    /// The verifying keys, the newest first.
    pub keys: Vec<VerifyingKey>,
    /// For each topic and partition, the offset from which every record must be signed. A missing entry means 0.
    #[serde(default)]
    pub from: BTreeMap<String, Offsets>,
    /// The keys that were replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced: Vec<ReplacedKey>,
}

/// A verifying key that was replaced. Somebody else may have its private part by now, so its signatures count only on
/// records that existed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplacedKey {
    /// The key.
    pub key: VerifyingKey,
    /// For each topic and partition of the service, the offset from which the key's signatures no longer count. A
    /// missing entry means 0.
    pub before: BTreeMap<String, Offsets>,
}

impl Signer {
    /// Whether a record may be without a signature.
    pub(super) fn may_lack(&self, message: &Message) -> bool {
        let from = self.from.get(&message.topic);
        let from = from.and_then(|from| from.get(&message.position.partition));
        message.position.offset < from.copied().unwrap_or_default()
    }

    /// Whether signatures with this key count at this record's position.
    pub(super) fn counts(&self, key: &VerifyingKey, message: &Message) -> bool {
        let replaced = self.replaced.iter().find(|replaced| replaced.key == *key);
        replaced.is_none_or(|replaced| {
            let before = replaced.before.get(&message.topic);
            let before = before.and_then(|before| before.get(&message.position.partition));
            message.position.offset < before.copied().unwrap_or_default()
        })
    }

    /// Whether this is one of the service's keys and was not replaced.
    pub(crate) fn signs_with(&self, key: &VerifyingKey) -> bool {
        self.keys.contains(key) && !self.was_replaced(key)
    }

    /// Whether this key was replaced.
    pub(crate) fn was_replaced(&self, key: &VerifyingKey) -> bool {
        self.replaced.iter().any(|replaced| replaced.key == *key)
    }

    /// Adds a key as the newest. The signatures of the others count only before these offsets from now on.
    pub(crate) fn replace_keys(&mut self, key: VerifyingKey, before: &BTreeMap<String, Offsets>) {
        let replaced = self.keys.iter().filter(|known| !self.was_replaced(known));
        let replaced: Vec<_> = replaced
            .map(|key| ReplacedKey {
                key: *key,
                before: before.clone(),
            })
            .collect();
        self.replaced.extend(replaced);
        self.keys.insert(0, key);
    }

    /// Judges a record that must be signed.
    ///
    /// # Errors
    /// Why the record does not count as one of the service.
    pub fn has_signed(&self, service: &str, message: &Message) -> Result<(), Unverified> {
        self.verified(service, message)
    }

    /// Judges a record of one of the service's topics.
    ///
    /// # Errors
    /// Why the record does not count as one of the service.
    pub fn judge(&self, service: &str, message: &Message) -> Result<(), Unverified> {
        match self.has_signed(service, message) {
            Err(Unverified::Missing(_)) if self.may_lack(message) => Ok(()),
            judged => judged,
        }
    }

    /// Checks that one of the service's keys signed a record.
    fn verified(&self, service: &str, message: &Message) -> Result<(), Unverified> {
        let signed = signature_of(message)?;
        let signed = signed.ok_or_else(|| Unverified::Missing(service.to_owned()))?;
        let key = key_of(service, &signed, self.keys.iter())?;
        if !self.counts(key, message) {
            return Err(Unverified::replaced(key, service));
        }
        let root = signed.root(canonical::of_message(message));
        if signed.is_of(&root, key) {
            Ok(())
        } else {
            Err(Unverified::Changed)
        }
    }
}

/// The key among `keys` that made a signature.
pub(super) fn key_of<'a>(
    service: &str,
    signed: &Signature,
    mut keys: impl Iterator<Item = &'a VerifyingKey>,
) -> Result<&'a VerifyingKey, Unverified> {
    keys.find(|key| key.id() == signed.key)
        .ok_or_else(|| Unverified::OtherKey {
            key: hexadecimal(&signed.key),
            service: service.to_owned(),
        })
}

/// The signature of a record, if it has one.
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
