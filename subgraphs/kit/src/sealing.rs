//! Sealing of what must not be read at rest: AES-256-GCM with a random nonce and associated data.
//!
//! A sealed text is `v1.` and the base64url of nonce, ciphertext and tag (NIST SP 800-38D). The associated data
//! binds it to its place, so that one customer's sealed number does not open in another customer's record.

use std::{path::PathBuf, sync::Arc};

use aes_gcm::{
    Aes256Gcm, Key, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use clap::Args;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sha2::{Digest, Sha256};

const PREFIX: &str = "v1.";
const NONCE_BYTES: usize = 12;

/// Where the sealing key comes from.
#[derive(Args, Clone, Debug)]
pub struct SealingSettings {
    /// The sealing key: 32 bytes as base64. Only by environment, so that it shows in no process list.
    #[arg(
        long,
        env = "TANDEM_SEALING_KEY",
        value_name = "BASE64",
        hide = true,
        hide_env_values = true
    )]
    pub sealing_key: Option<SecretString>,

    /// File that holds the sealing key: 32 bytes as base64.
    #[arg(long, env = "TANDEM_SEALING_KEY_FILE", value_name = "FILE")]
    pub sealing_key_file: Option<PathBuf>,
}

/// Why there is no usable sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither the environment nor a file gives one.
    #[error(
        "no sealing key: set TANDEM_SEALING_KEY to 32 random bytes in base64 (openssl rand -base64 32), or TANDEM_SEALING_KEY_FILE to a file that holds them"
    )]
    Missing,
    /// The file cannot be read.
    #[error("the sealing key file {path} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not 32 bytes of base64.
    #[error("the sealing key must be 32 bytes in base64 (openssl rand -base64 32)")]
    Malformed,
}

/// Why a sealed text does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not a sealed text of a known version.
    #[error("not a sealed text of version 1")]
    Malformed,
    /// Another key sealed it, for another place, or it was changed.
    #[error("the sealed text does not open with this key in this place")]
    Refused,
}

/// Seals and opens with one key.
#[derive(Clone)]
pub struct Sealer {
    cipher: Aes256Gcm,
    key: Arc<SecretBox<[u8; 32]>>,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sealer")
    }
}

impl Sealer {
    /// A sealer with the key that the settings name.
    ///
    /// # Errors
    /// When there is none, or it is not 32 bytes of base64.
    pub fn from_settings(settings: &SealingSettings) -> Result<Self, KeyError> {
        let text = match (&settings.sealing_key, &settings.sealing_key_file) {
            (Some(key), _) => key.expose_secret().to_owned(),
            (None, Some(path)) => {
                std::fs::read_to_string(path).map_err(|source| KeyError::Unreadable {
                    path: path.clone(),
                    source,
                })?
            }
            (None, None) => return Err(KeyError::Missing),
        };
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| KeyError::Malformed)?;
        let key: [u8; 32] = bytes.try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self::new(&key))
    }

    /// A sealer with this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key)),
            key: Arc::new(SecretBox::new(Box::new(*key))),
        }
    }

    /// A secret for another purpose, from which the key cannot be told: SHA-256 of key and purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        Sha256::new_with_prefix(self.key.expose_secret())
            .chain_update(purpose)
            .finalize()
            .into()
    }

    /// Seals `plain` for the place that `associated` names.
    #[must_use]
    pub fn seal(&self, plain: &[u8], associated: &[u8]) -> String {
        format!(
            "{PREFIX}{}",
            URL_SAFE_NO_PAD.encode(self.seal_bytes(plain, associated))
        )
    }

    /// Seals `plain` for the place that `associated` names, as bytes: nonce, ciphertext and tag.
    #[must_use]
    pub fn seal_bytes(&self, plain: &[u8], associated: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: plain,
            aad: associated,
        };
        let mut sealed = nonce.to_vec();
        // AES-GCM refuses only texts of more than 64 GiB; an empty one would then not open, which loses nothing silently.
        sealed.extend(
            self.cipher
                .encrypt(Nonce::from_slice(&nonce), payload)
                .unwrap_or_default(),
        );
        sealed
    }

    /// Opens what was sealed for the place that `associated` names.
    ///
    /// # Errors
    /// When it is no sealed text, or another key or place sealed it.
    pub fn open(&self, sealed: &str, associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        let bytes = sealed
            .strip_prefix(PREFIX)
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
            .ok_or(OpenError::Malformed)?;
        self.open_bytes(&bytes, associated)
    }

    /// Opens bytes that were sealed for the place that `associated` names.
    ///
    /// # Errors
    /// When they are too few, or another key or place sealed them.
    pub fn open_bytes(&self, sealed: &[u8], associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        let (nonce, ciphertext) = sealed
            .split_at_checked(NONCE_BYTES)
            .ok_or(OpenError::Malformed)?;
        let payload = Payload {
            msg: ciphertext,
            aad: associated,
        };
        self.cipher
            .decrypt(Nonce::from_slice(nonce), payload)
            .map_err(|_| OpenError::Refused)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal(b"1234-6789-0000-0000", b"1/PRIMARY");
        assert_eq!(
            sealer.open(&sealed, b"1/PRIMARY").unwrap(),
            b"1234-6789-0000-0000"
        );
        assert_eq!(sealer.open(&sealed, b"2/PRIMARY"), Err(OpenError::Refused));
        assert_eq!(
            Sealer::new(&[8; 32]).open(&sealed, b"1/PRIMARY"),
            Err(OpenError::Refused)
        );
    }

    #[test]
    fn the_same_text_never_seals_alike() {
        let sealer = Sealer::new(&[7; 32]);
        assert_ne!(sealer.seal(b"x", b""), sealer.seal(b"x", b""));
    }

    #[test]
    fn a_text_that_was_not_sealed_is_malformed() {
        let sealer = Sealer::new(&[7; 32]);
        assert_eq!(sealer.open("v1.AAAA", b""), Err(OpenError::Malformed));
        assert_eq!(sealer.open("hello", b""), Err(OpenError::Malformed));
    }
}
