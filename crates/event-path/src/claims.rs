//! Claims on topics, as they are on the topic of data keys. A claim says which system the topics belong to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tandem_model::message::Message;

use crate::{
    log::Offsets,
    signing::{ReplacedKey, Signatures, Signer, Unverified, VerifyingKey},
};

/// The prefix of the keys of claims. No subject's id contains a `!`.
pub(crate) const CLAIM: &str = "!claim/";

/// A service's claim on the topics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The system's identity: a UUID.
    pub system: String,
    /// The identity of the store that claims.
    pub store: String,
    /// The fingerprint of the sealing key.
    pub sealing_key: String,
    /// The keys that verify the service's signatures, the newest key first. Empty in claims from before signatures
    /// existed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verifying_keys: Vec<VerifyingKey>,
    /// For each topic of the service and each partition, the offset from which every record is signed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signed_from: BTreeMap<String, Offsets>,
    /// Those of the keys that were replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaced_keys: Vec<ReplacedKey>,
    /// The serial number of the service's claims. A claim with a lower number than another one is an old claim,
    /// possibly repeated by someone else: anybody with write access can repeat a signed record. 0 in claims from
    /// before they were numbered.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub number: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde hands it
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Claim {
    /// The signer that this claim names, if it names any.
    #[must_use]
    pub fn signer(&self) -> Option<Signer> {
        (!self.verifying_keys.is_empty()).then(|| Signer {
            keys: self.verifying_keys.clone(),
            from: self.signed_from.clone(),
            replaced: self.replaced_keys.clone(),
        })
    }

    /// Makes this claim name a signer.
    pub(crate) fn set_signer(&mut self, signer: Signer) {
        self.verifying_keys = signer.keys;
        self.signed_from = signer.from;
        self.replaced_keys = signer.replaced;
    }
}

/// Why a claim does not count.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error(transparent)]
    Unverified(#[from] Unverified),
    #[error(
        "it is an old one that somebody has written again: its number is {number}, and {known} is known"
    )]
    Repeated { number: u64, known: u64 },
}

/// All claims on a topic of keys, as far as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The first claim of any service. Its system owns the topics.
    pub first: Option<Claim>,
    /// The newest claim of each service.
    pub of: BTreeMap<String, Claim>,
    /// The highest claim number of each service, including withdrawn claims.
    pub(crate) numbers: BTreeMap<String, u64>,
}

impl Claims {
    /// Evaluates these messages in order. Ignores claims without a valid signature, for a service whose keys are
    /// known: from what is pinned, or else from the service's first signed claim.
    pub(crate) fn of_messages(messages: &[Message], signatures: Option<&Signatures>) -> Self {
        let mut claims = Self::default();
        for message in messages {
            let service = message
                .key
                .as_deref()
                .and_then(|key| key.strip_prefix(CLAIM));
            let Some(service) = service else { continue };
            if let Err(reason) = claims.take(service, message, signatures) {
                tracing::error!(
                    service,
                    partition = message.position.partition,
                    offset = message.position.offset,
                    %reason,
                    "a claim of the topics is not taken"
                );
            }
        }
        claims
    }

    /// Applies a message that claims the topics for a service, or that withdraws its claim.
    fn take(
        &mut self,
        service: &str,
        message: &Message,
        signatures: Option<&Signatures>,
    ) -> Result<(), NotTaken> {
        let claim = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Claim>)
            .transpose()?;
        if let Some(signatures) = signatures {
            self.judge(service, message, claim.as_ref(), signatures)?;
        }
        match claim {
            Some(claim) => {
                self.count(service, claim.number, signatures)?;
                self.first.get_or_insert_with(|| claim.clone());
                self.of.insert(service.to_owned(), claim);
            }
            None => {
                self.of.remove(service);
            }
        }
        Ok(())
    }

    /// The number for the next claim of a service.
    pub(crate) fn next_number(&self, service: &str, signatures: Option<&Signatures>) -> u64 {
        self.known_number(service, signatures) + 1
    }

    fn known_number(&self, service: &str, signatures: Option<&Signatures>) -> u64 {
        let shown = self.numbers.get(service).copied().unwrap_or_default();
        let known = signatures.map_or(0, |signatures| signatures.claim_number(service));
        shown.max(known)
    }

    /// Checks and notes the number of a claim. If an operator has ordered to believe claims, the last claim counts
    /// whatever its number is.
    fn count(
        &mut self,
        service: &str,
        number: u64,
        signatures: Option<&Signatures>,
    ) -> Result<(), NotTaken> {
        let believes = signatures.is_some_and(Signatures::believes_claims);
        let known = self.known_number(service, signatures);
        if number < known && !believes {
            return Err(NotTaken::Repeated { number, known });
        }
        let highest = self.numbers.entry(service.to_owned()).or_default();
        *highest = number.max(*highest);
        Ok(())
    }

    fn judge(
        &self,
        service: &str,
        message: &Message,
        claim: Option<&Claim>,
        signatures: &Signatures,
    ) -> Result<(), Unverified> {
        let believes = signatures.believes_claims();
        if signatures.signer(service).is_some() && !believes {
            return signatures.judge(message);
        }
        let known = self.of.get(service).and_then(Claim::signer);
        let signer = known
            .filter(|_| !believes)
            .or_else(|| claim.and_then(Claim::signer));
        match (signer, signatures.given(service)) {
            // From before signatures existed.
            (None, []) => Ok(()),
            (Some(signer), []) => signatures.judge_by_signer(service, message, &signer),
            (_, given) => signatures.judge_by(service, message, given),
        }
    }
}

/// The signer of a service according to these messages of the topic of keys, in order. The first signed claim counts,
/// and then each later claim that a known key has signed.
#[must_use]
pub fn claimed_signer(service: &str, messages: &[Message]) -> Option<Signer> {
    let (mut found, mut number): (Option<Signer>, u64) = (None, 0);
    for message in messages {
        let key = message.key.as_deref();
        if key.and_then(|key| key.strip_prefix(CLAIM)) != Some(service) {
            continue;
        }
        let body = message.payload.as_deref();
        let claim = body.and_then(|body| serde_json::from_slice::<Claim>(body).ok());
        let Some((claim, claimed)) = claim.and_then(|claim| Some((claim.number, claim.signer()?)))
        else {
            continue;
        };
        let known = found.as_ref().unwrap_or(&claimed);
        if claim >= number && known.has_signed(service, message).is_ok() {
            (found, number) = (Some(claimed), claim);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tandem_model::message::Position;

    use super::*;
    use crate::{
        log::Record,
        signing::{SigningKey, SigningSettings},
    };

    const TOPIC: &str = "keys";
    const KEY: &str = "!claim/accounts";

    fn signatures(service: &'static str, seed: u8) -> Signatures {
        let key = SigningKey::from_seed(&[seed; 32]).unwrap();
        let settings = SigningSettings::default();
        Signatures::new(service, key, &[(TOPIC, "accounts")], &settings)
    }

    fn claim(number: u64, sealing_key: &str, keys: &[&Signatures]) -> Claim {
        Claim {
            system: "system".to_owned(),
            sealing_key: sealing_key.to_owned(),
            verifying_keys: keys.iter().map(|key| *key.verifying()).collect(),
            number,
            ..Claim::default()
        }
    }

    fn written(claim: Option<&Claim>, by: &Signatures, offset: i64) -> Message {
        let body = claim.map(|claim| serde_json::to_vec(claim).unwrap());
        let record = by.signed(Record::new(TOPIC, KEY, body.as_deref()));
        let headers = record.headers.iter();
        Message {
            topic: TOPIC.to_owned(),
            position: Position {
                partition: 0,
                offset,
            },
            key: Some(KEY.to_owned()),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            payload: record.payload.map(<[u8]>::to_vec),
            published_ms: None,
        }
    }

    fn again(message: &Message, offset: i64) -> Message {
        let mut message = message.clone();
        message.position.offset = offset;
        message
    }

    fn sealing_key(claims: &Claims) -> Option<&str> {
        let claim = claims.of.get("accounts")?;
        Some(&claim.sealing_key)
    }

    #[test]
    fn an_old_claim_that_somebody_writes_again_does_not_count() {
        let (accounts, orders) = (signatures("accounts", 1), signatures("orders", 9));
        let old = written(Some(&claim(1, "old", &[&accounts])), &accounts, 0);
        let new = written(Some(&claim(2, "new", &[&accounts])), &accounts, 1);
        let all = [old.clone(), new.clone(), again(&old, 2)];
        let claims = Claims::of_messages(&all, Some(&orders));
        assert_eq!(sealing_key(&claims), Some("new"));
        assert_eq!(claims.next_number("accounts", Some(&orders)), 3);
        // A repetition of the newest claim changes nothing.
        let all = [old.clone(), new.clone(), again(&new, 2)];
        let claims = Claims::of_messages(&all, Some(&orders));
        assert_eq!(sealing_key(&claims), Some("new"));
        // Compaction has kept only the old claim. A reader that knows a higher number ignores it, and does not
        // conclude that nothing was claimed either.
        orders.know_claim_number("accounts", 2);
        let claims = Claims::of_messages(&[again(&old, 2)], Some(&orders));
        assert_eq!(claims.first, None);
        assert_eq!(claims.next_number("accounts", Some(&orders)), 3);
    }

    #[test]
    fn an_old_claim_does_not_come_back_behind_the_tombstone_of_a_newer_one() {
        let (accounts, orders) = (signatures("accounts", 1), signatures("orders", 9));
        let old = written(Some(&claim(1, "old", &[&accounts])), &accounts, 0);
        let new = written(Some(&claim(2, "new", &[&accounts])), &accounts, 1);
        let tombstone = written(None, &accounts, 2);
        orders.trust("accounts", claim(2, "new", &[&accounts]).signer().unwrap());
        let all = [old.clone(), new, tombstone, again(&old, 3)];
        let claims = Claims::of_messages(&all, Some(&orders));
        assert_eq!(sealing_key(&claims), None);
    }

    #[test]
    fn where_an_operator_orders_it_the_last_claim_counts_whatever_its_number() {
        let (accounts, orders) = (signatures("accounts", 1), signatures("orders", 9));
        let other = signatures("accounts", 2);
        let high = written(Some(&claim(9, "other", &[&other])), &other, 0);
        let low = written(Some(&claim(3, "ours", &[&accounts])), &accounts, 1);
        orders.believe_claims();
        let claims = Claims::of_messages(&[high, low], Some(&orders));
        assert_eq!(sealing_key(&claims), Some("ours"));
    }

    #[test]
    fn a_key_that_was_replaced_claims_nothing_any_more() {
        let (old, new) = (signatures("accounts", 1), signatures("accounts", 2));
        let orders = signatures("orders", 9);
        let first = written(Some(&claim(1, "first", &[&old])), &old, 0);
        let mut signer = claim(1, "", &[&old]).signer().unwrap();
        let before = BTreeMap::from([(TOPIC.to_owned(), Offsets::from([(0, 1)]))]);
        signer.replace_keys(*new.verifying(), &before);
        let mut second = claim(2, "second", &[]);
        second.set_signer(signer);
        orders.trust("accounts", second.signer().unwrap());
        let forged = written(Some(&claim(7, "forged", &[&old])), &old, 2);
        let all = [first, written(Some(&second), &new, 1), forged];
        let claims = Claims::of_messages(&all, Some(&orders));
        assert_eq!(sealing_key(&claims), Some("second"));
        // Tools pin nothing and rely on the claims alone. The claim that names the new key is not signed by the
        // previous key.
        assert_eq!(claims.next_number("accounts", None), 3);
    }

    #[test]
    fn a_claim_from_before_claims_were_counted_is_written_as_it_was() {
        let text = serde_json::to_string(&claim(0, "old", &[])).unwrap();
        assert_eq!(
            text,
            r#"{"system":"system","store":"","sealing_key":"old"}"#
        );
        let read: Claim = serde_json::from_str(&text).unwrap();
        assert_eq!(read.number, 0);
    }
}
