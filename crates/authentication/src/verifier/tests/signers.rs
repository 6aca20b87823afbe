//! Keys of every kind that may sign tokens, and their published form.

use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::Jwk;

use super::*;
use crate::development::PKCS8_PREFIX;

/// A key that signs tokens, with its id.
pub(super) struct Signer {
    key: EncodingKey,
    pub(super) algorithm: Algorithm,
    pub(super) id: String,
}

impl Signer {
    /// A new Ed25519 key each time.
    pub(super) fn ed25519(id: &str) -> Self {
        let mut der = PKCS8_PREFIX.to_vec();
        der.extend_from_slice(&rand::random::<[u8; 32]>());
        Self::new(EncodingKey::from_ed_der(&der), Algorithm::EdDSA, id)
    }

    /// The RSA key that was generated for these tests.
    pub(super) fn rsa(id: &str, algorithm: Algorithm) -> Self {
        let der = der(include_str!("keys/rsa.pem"));
        Self::new(EncodingKey::from_rsa_der(&der), algorithm, id)
    }

    /// The P-256 key that was generated for these tests.
    pub(super) fn p256(id: &str) -> Self {
        let der = der(include_str!("keys/p-256.pem"));
        Self::new(EncodingKey::from_ec_der(&der), Algorithm::ES256, id)
    }

    fn new(key: EncodingKey, algorithm: Algorithm, id: &str) -> Self {
        Self {
            key,
            algorithm,
            id: id.to_owned(),
        }
    }

    /// The public key as an issuer publishes it, with its algorithm.
    pub(super) fn published(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.id.clone());
        serde_json::to_value(jwk).unwrap()
    }

    pub(super) fn token(&self, claims: &Value) -> String {
        self.token_of_type(Some("JWT"), claims)
    }

    pub(super) fn token_of_type(&self, kind: Option<&str>, claims: &Value) -> String {
        let mut header = Header::new(self.algorithm);
        header.typ = kind.map(str::to_owned);
        header.kid = Some(self.id.clone());
        encode(&header, claims, &self.key).unwrap()
    }
}

/// A set of these keys.
pub(super) fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

/// An issuer whose keys are in a file in this directory.
pub(super) fn issuer(directory: &std::path::Path, name: &str, keys: &[Value]) -> Issuer {
    let path = directory.join(format!("{name}.json"));
    std::fs::write(&path, key_set(keys)).unwrap();
    Issuer {
        name: name.to_owned(),
        keys: KeySource::File(path),
    }
}

pub(super) async fn verifier(issuers: Vec<Issuer>) -> Verifier {
    Verifier::start(
        issuers,
        vec!["tandem".to_owned()],
        Duration::ZERO,
        CancellationToken::new(),
    )
    .await
    .unwrap()
}

/// The claims of a valid token from this issuer.
pub(super) fn claims(issuer: &str, subject: &str) -> Value {
    json!({"iss": issuer, "aud": "tandem", "sub": subject, "scope": "orders:read self", "exp": NOW + 60})
}
