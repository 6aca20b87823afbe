//! The public keys for verifying tokens: a JSON Web Key Set (RFC 7517), which is checked when it is read.

use std::collections::HashMap;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};

/// The largest document that is read, in bytes.
pub(crate) const MAX_DOCUMENT: usize = 256 * 1024;
/// The most keys in a set. No issuer has more; a larger set would be an attack on memory.
const MAX_KEYS: usize = 100;

/// Verification keys by their id.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: HashMap<String, VerificationKey>,
    /// The key of a set whose only key has no id.
    nameless: Option<VerificationKey>,
}

#[derive(Clone)]
pub(crate) struct VerificationKey {
    pub(crate) key: DecodingKey,
    /// The algorithms that this key may have signed with. The key determines them, never the token (RFC 8725, section
    /// 3.1).
    pub(crate) algorithms: Vec<Algorithm>,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("KeySet")
            .field("ids", &self.keys.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Why a document is not a usable key set.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is not JSON of the right structure.
    #[error("this is no JSON Web Key Set (RFC 7517): {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is too large.
    #[error("the key set has more than {MAX_DOCUMENT} bytes or {MAX_KEYS} keys")]
    TooLarge,
    /// None of its keys can verify a signature.
    #[error(
        "the key set has no key that can be used: RSA of 2048 bits or more, P-256, P-384 or Ed25519, with `use` absent or `sig` and `key_ops` absent or with `verify`{}",
        reasons(.0)
    )]
    NoUsableKey(Vec<String>),
}

fn reasons(reasons: &[String]) -> String {
    if reasons.is_empty() {
        String::new()
    } else {
        format!(" ({})", reasons.join("; "))
    }
}

impl KeySet {
    /// Reads a set. It skips keys for encryption, symmetric keys and unknown kinds.
    ///
    /// # Errors
    ///
    /// When the document cannot be read or is too large, or when no key is left.
    pub fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        if document.len() > MAX_DOCUMENT {
            return Err(KeySetError::TooLarge);
        }
        // Each key is parsed separately, so one of an unknown kind does not make the others unusable.
        #[derive(serde::Deserialize)]
        struct Document {
            keys: Vec<serde_json::Value>,
        }
        let Document { keys } = serde_json::from_slice(document)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooLarge);
        }
        let mut set = Self::default();
        let mut refused = Vec::new();
        let only_one = keys.len() == 1;
        for (index, value) in keys.into_iter().enumerate() {
            match serde_json::from_value::<Jwk>(value)
                .map_err(|error| error.to_string())
                .and_then(|jwk| {
                    let key = usable(&jwk)?;
                    Ok((jwk.common.key_id, key))
                }) {
                Ok((Some(id), key)) => {
                    set.keys.insert(id, key);
                }
                Ok((None, key)) if only_one => set.nameless = Some(key),
                Ok((None, _)) => refused.push(format!("key {index} has no `kid`")),
                Err(reason) => refused.push(format!("key {index}: {reason}")),
            }
        }
        if set.keys.is_empty() && set.nameless.is_none() {
            return Err(KeySetError::NoUsableKey(refused));
        }
        for reason in refused {
            tracing::warn!(reason, "a key of the set is not used");
        }
        Ok(set)
    }

    /// The key that a token names, or the only key of a set if the token names none or the key has no id.
    pub(crate) fn find(&self, id: Option<&str>) -> Option<&VerificationKey> {
        match id {
            Some(id) => self.keys.get(id).or(self.nameless.as_ref()),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => self.nameless.as_ref(),
        }
    }

    /// Ids of the keys, sorted.
    #[must_use]
    pub fn ids(&self) -> Vec<&str> {
        let mut ids: Vec<&str> = self.keys.keys().map(String::as_str).collect();
        ids.sort_unstable();
        ids
    }
}

/// A document with one public key.
pub(crate) fn document(key: Jwk) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&JwkSet { keys: vec![key] })
}

fn usable(jwk: &Jwk) -> Result<VerificationKey, String> {
    if let Some(public_use) = &jwk.common.public_key_use
        && *public_use != PublicKeyUse::Signature
    {
        return Err("it is not for signatures".to_owned());
    }
    if let Some(operations) = &jwk.common.key_operations
        && !operations.contains(&KeyOperations::Verify)
    {
        return Err("its `key_ops` are without `verify`".to_owned());
    }
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            // 2048 bits are 342 characters of base64url. RFC 7518, section 3.3, requires 2048 or more.
            if rsa.n.len() < 342 {
                return Err("an RSA key of less than 2048 bits".to_owned());
            }
            vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return Err("a curve that is not supported".to_owned()),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKey(_) => {
            return Err("a symmetric key: whoever can verify with it can also forge".to_owned());
        }
        _ => return Err("a kind of key that is not supported".to_owned()),
    };
    if let Some(named) = &jwk.common.key_algorithm {
        let named = named.to_string();
        algorithms.retain(|algorithm| format!("{algorithm:?}") == named);
        if algorithms.is_empty() {
            return Err(format!("`alg` {named} does not fit this kind of key"));
        }
    }
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    Ok(VerificationKey { key, algorithms })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const ED25519: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

    #[test]
    fn what_cannot_be_used_does_not_cost_its_neighbours() {
        let document = format!(
            r#"{{"keys":[{ED25519},{{"kty":"oct","kid":"b","k":"c2VjcmV0"}},{{"kty":"new","kid":"c"}},{{"kty":"RSA","kid":"d","use":"enc","n":"AQAB","e":"AQAB"}}]}}"#
        );
        let set = KeySet::parse(document.as_bytes()).unwrap();
        assert_eq!(set.ids(), ["a"]);
        assert!(set.find(Some("b")).is_none());
    }

    #[test]
    fn a_set_without_a_usable_key_says_why() {
        let refused =
            KeySet::parse(br#"{"keys":[{"kty":"oct","kid":"b","k":"c2VjcmV0"}]}"#).unwrap_err();
        assert!(refused.to_string().contains("symmetric"), "{refused}");
        let weak = KeySet::parse(br#"{"keys":[{"kty":"RSA","kid":"d","n":"AQAB","e":"AQAB"}]}"#)
            .unwrap_err();
        assert!(weak.to_string().contains("2048"), "{weak}");
        assert!(matches!(
            KeySet::parse(b"{}"),
            Err(KeySetError::Malformed(_))
        ));
        assert!(matches!(
            KeySet::parse(&vec![b' '; MAX_DOCUMENT + 1]),
            Err(KeySetError::TooLarge)
        ));
    }

    #[test]
    fn a_key_that_says_it_is_for_something_else_verifies_nothing() {
        let with = |members: &str| {
            let key = ED25519.replace("\"kid\"", &format!("{members},\"kid\""));
            KeySet::parse(format!(r#"{{"keys":[{key}]}}"#).as_bytes())
        };
        for other in [
            r#""use":"enc""#,
            r#""key_ops":["sign"]"#,
            r#""key_ops":["encrypt","wrapKey"]"#,
            r#""key_ops":[]"#,
        ] {
            assert!(
                matches!(with(other), Err(KeySetError::NoUsableKey(_))),
                "{other}"
            );
        }
        for right in [
            r#""use":"sig""#,
            r#""key_ops":["verify"]"#,
            r#""key_ops":["sign","verify"]"#,
        ] {
            assert!(with(right).is_ok(), "{right}");
        }
    }

    #[test]
    fn an_algorithm_that_the_key_names_is_the_only_one() {
        let wrong = ED25519.replace("\"kid\"", "\"alg\":\"RS256\",\"kid\"");
        assert!(KeySet::parse(format!(r#"{{"keys":[{wrong}]}}"#).as_bytes()).is_err());
        let set = KeySet::parse(format!(r#"{{"keys":[{ED25519}]}}"#).as_bytes()).unwrap();
        assert_eq!(set.find(Some("a")).unwrap().algorithms, [Algorithm::EdDSA]);
        assert_eq!(set.find(None).unwrap().algorithms, [Algorithm::EdDSA]);
    }
}
