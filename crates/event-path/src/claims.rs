//! Claims of topics, as they are on the topic of data keys: whom the topics were made for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tandem_model::message::Message;

use crate::{
    log::Offsets,
    signing::{Signatures, Signer, Unverified, VerifyingKey},
};

/// Begins the keys of messages that claim the topics: no subject's id holds a `!`.
pub(crate) const CLAIM: &str = "!claim/";

/// What a service claims the topics for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The system's identity: a UUID.
    pub system: String,
    /// The identity of the store that claims.
    pub store: String,
    /// The fingerprint of the sealing key.
    pub sealing_key: String,
    /// What the service's signatures are verified with, the newest key first. None in claims from before there were signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verifying_keys: Vec<VerifyingKey>,
    /// For each topic of the service and each partition the offset from which on every record is signed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub signed_from: BTreeMap<String, Offsets>,
}

/// All claims of a topic of keys, as far as it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The first claim, whoever made it: its system is the topics'.
    pub first: Option<Claim>,
    /// The newest claim of each service.
    pub of: BTreeMap<String, Claim>,
}

impl Claims {
    /// What these messages, in order, come to. Those that a service did not sign whose keys are known are none: by what is pinned, or
    /// else by what its first signed claim says of itself.
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
                    reason,
                    "a claim of the topics is not taken"
                );
            }
        }
        claims
    }

    /// Takes a message that claims the topics for a service, or takes its claim back.
    fn take(
        &mut self,
        service: &str,
        message: &Message,
        signatures: Option<&Signatures>,
    ) -> Result<(), String> {
        let claim = message
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Claim>)
            .transpose()
            .map_err(|error| format!("it cannot be read: {error}"))?;
        if let Some(signatures) = signatures {
            self.judge(service, message, claim.as_ref(), signatures)
                .map_err(|error| error.to_string())?;
        }
        match claim {
            Some(claim) => {
                self.first.get_or_insert_with(|| claim.clone());
                self.of.insert(service.to_owned(), claim);
            }
            None => {
                self.of.remove(service);
            }
        }
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
        let known = self.of.get(service).map(|claim| &claim.verifying_keys);
        let mut keys = known.filter(|keys| !keys.is_empty() && !believes);
        if keys.is_none() {
            keys = claim
                .map(|claim| &claim.verifying_keys)
                .filter(|keys| !keys.is_empty());
        }
        match (keys, signatures.given(service)) {
            // From before there were signatures.
            (None, []) => Ok(()),
            (Some(keys), []) => signatures.judge_by(service, message, keys),
            (_, given) => signatures.judge_by(service, message, given),
        }
    }
}

/// A service as these messages of the topic of keys, in order, know it: by its first signed claim, and by each later one that a key known
/// then has signed.
#[must_use]
pub fn claimed_signer(service: &str, messages: &[Message]) -> Option<Signer> {
    let mut found: Option<Signer> = None;
    for message in messages {
        let key = message.key.as_deref();
        if key.and_then(|key| key.strip_prefix(CLAIM)) != Some(service) {
            continue;
        }
        let body = message.payload.as_deref();
        let claim = body.and_then(|body| serde_json::from_slice::<Claim>(body).ok());
        let Some(claim) = claim.filter(|claim| !claim.verifying_keys.is_empty()) else {
            continue;
        };
        let claimed = Signer {
            keys: claim.verifying_keys,
            from: claim.signed_from,
        };
        let known = found.as_ref().unwrap_or(&claimed);
        if known.has_signed(service, message).is_ok() {
            found = Some(claimed);
        }
    }
    found
}
