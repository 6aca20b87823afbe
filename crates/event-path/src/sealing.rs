//! Seals data that must not be readable at rest: AES-256-GCM with a random nonce and associated data.
//!
//! A sealed text is `v1.` and the base64url of nonce, ciphertext and tag (NIST SP 800-38D). The associated data binds
//! it to its place. So one customer's sealed number does not open in another customer's record.
//!
//! The key of the services can be replaced. Then several keys are given: the first one seals, and all open. A text that
//! it seals names the key: `v2.`, the fingerprint of the key, `.`, and the same base64url. An older text without a name
//! is tried with each key.

mod unopened;

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

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
pub use tandem_model::seal::OpenError;
use tandem_runtime::clock::Clock;

use unopened::UnopenedKeys;

const PREFIX: &str = "v1.";
const NAMED_PREFIX: &str = "v2.";
/// How long the command that prints the key may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const NONCE_BYTES: usize = 12;

/// Where the sealing key comes from.
#[derive(Args, Clone, Debug, Default)]
pub struct SealingSettings {
    /// The sealing key: 32 bytes as base64. Several, between commas or lines, while it is being replaced: the first one seals, all open.
    /// Only by environment, so that it shows in no process list.
    #[arg(
        long,
        env = "TANDEM_SEALING_KEY",
        value_name = "BASE64",
        hide = true,
        hide_env_values = true
    )]
    pub sealing_key: Option<SecretString>,

    /// File that holds the sealing key: 32 bytes as base64. Several lines while it is being replaced: the first one seals, all open.
    #[arg(long, env = "TANDEM_SEALING_KEY_FILE", value_name = "FILE")]
    pub sealing_key_file: Option<PathBuf>,

    /// Command that prints the sealing key, as such a file holds it; run by sh at the start, within 10 s.
    #[arg(long, env = "TANDEM_SEALING_KEY_COMMAND", value_name = "COMMAND")]
    pub sealing_key_command: Option<String>,
}

impl SealingSettings {
    /// Whether the settings name a key.
    #[must_use]
    pub fn names_a_key(&self) -> bool {
        self.sealing_key.is_some()
            || self.sealing_key_file.is_some()
            || self.sealing_key_command.is_some()
    }
}

/// Why there is no usable sealing key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Neither the environment nor a file nor a command gives a key.
    #[error(
        "no sealing key: set TANDEM_SEALING_KEY to 32 random bytes in base64 (openssl rand -base64 32), or TANDEM_SEALING_KEY_FILE to a file that holds them, or TANDEM_SEALING_KEY_COMMAND to a command that prints them"
    )]
    Missing,
    /// The file cannot be read.
    #[error("the sealing key file {path} cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// The command does not print the key.
    #[error("the command of --sealing-key-command does not tell the sealing key: {0}")]
    Command(String),
    /// A key is not 32 bytes in base64.
    #[error("the sealing key must be 32 bytes in base64 (openssl rand -base64 32)")]
    Malformed,
}

/// Seals with one key. Opens with that key and with the keys that it replaced.
#[derive(Clone)]
pub struct Sealer {
    /// Shared: it holds more than a kilobyte of round keys, and every subscription has a sealer.
    cipher: Arc<Aes256Gcm>,
    key: Arc<SecretBox<[u8; 32]>>,
    /// The key's fingerprint, if sealed texts name it.
    name: Option<Arc<str>>,
    /// The keys that this one replaced.
    older: Option<Arc<[Sealer]>>,
    unopened: Option<UnopenedKeys>,
    clock: Clock,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Sealer")
    }
}

/// Parses keys that are separated by whitespace or commas.
fn parse(text: &str) -> Result<Vec<[u8; 32]>, KeyError> {
    let mut texts = text
        .split(|character: char| character.is_whitespace() || character == ',')
        .filter(|text| !text.is_empty())
        .peekable();
    if texts.peek().is_none() {
        return Err(KeyError::Malformed);
    }
    texts
        .map(|text| {
            let bytes = STANDARD.decode(text).map_err(|_| KeyError::Malformed)?;
            bytes.try_into().map_err(|_| KeyError::Malformed)
        })
        .collect()
}

/// The output of a command.
fn printed(command: &str) -> Result<String, KeyError> {
    let failed = |reason: String| KeyError::Command(reason);
    let child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let (told, answer) = mpsc::channel();
    // Waiting blocks, so a thread does it. A command that never ends is abandoned.
    std::thread::spawn(move || told.send(child.wait_with_output()));
    let output = answer
        .recv_timeout(COMMAND_LIMIT)
        .map_err(|_| {
            failed(format!(
                "it did not end within {} s",
                COMMAND_LIMIT.as_secs()
            ))
        })?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(format!("it ended with {}", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| KeyError::Malformed)
}

impl Sealer {
    /// A sealer with the keys of the settings: the first one seals, all open.
    ///
    /// # Errors
    /// When there is no key, or one is not 32 bytes in base64.
    pub fn from_settings(settings: &SealingSettings) -> Result<Self, KeyError> {
        let text = if let Some(key) = &settings.sealing_key {
            key.expose_secret().to_owned()
        } else if let Some(path) = &settings.sealing_key_file {
            std::fs::read_to_string(path).map_err(|source| KeyError::Unreadable {
                path: path.clone(),
                source,
            })?
        } else if let Some(command) = &settings.sealing_key_command {
            printed(command)?
        } else {
            return Err(KeyError::Missing);
        };
        let keys = parse(&text)?;
        let (newest, older) = keys.split_first().ok_or(KeyError::Malformed)?;
        Ok(Self::replacing(newest, older))
    }

    /// A sealer with this key. Its sealed texts do not name the key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: Arc::new(Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key))),
            key: Arc::new(SecretBox::new(Box::new(*key))),
            name: None,
            older: None,
            unopened: None,
            clock: Clock::default(),
        }
    }

    /// A sealer with this key, which replaced `older`. Its sealed texts name the key.
    #[must_use]
    pub fn replacing(key: &[u8; 32], older: &[[u8; 32]]) -> Self {
        let named = |key| {
            let sealer = Self::new(key);
            let name = Some(sealer.fingerprint().into());
            Self { name, ..sealer }
        };
        let older: Arc<[Self]> = older.iter().map(named).collect();
        Self {
            older: Some(older).filter(|older| !older.is_empty()),
            unopened: Some(UnopenedKeys::default()),
            ..named(key)
        }
    }

    /// The keys that this one replaced.
    #[must_use]
    pub fn older(&self) -> &[Self] {
        self.older.as_deref().unwrap_or_default()
    }

    /// This key and those that it replaced.
    fn all(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.older())
    }

    /// The fingerprints of all keys that can open. The first one is the key that seals.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        self.all().map(Self::fingerprint).collect()
    }

    /// Whether one of the keys has this fingerprint.
    #[must_use]
    pub fn has(&self, fingerprint: &str) -> bool {
        self.all().any(|sealer| sealer.fingerprint() == fingerprint)
    }

    /// The key with this fingerprint, as a sealer of its own.
    #[must_use]
    pub fn with_fingerprint(&self, fingerprint: &str) -> Option<&Self> {
        self.all()
            .find(|sealer| sealer.fingerprint() == fingerprint)
    }

    /// Seals a text with the newest key if another key sealed it, or if it names no key. `None` if nothing has to
    /// change.
    ///
    /// # Errors
    /// When the text does not open.
    pub fn reseal(&self, sealed: &str, associated: &[u8]) -> Result<Option<String>, OpenError> {
        let is_named = self.name.as_deref().is_some_and(|name| {
            let rest = sealed.strip_prefix(NAMED_PREFIX);
            rest.and_then(|rest| rest.split_once('.'))
                .map(|(named, _)| named)
                == Some(name)
        });
        if is_named {
            return Ok(None);
        }
        let plain = self.open(sealed, associated)?;
        Ok(Some(self.seal(&plain, associated)))
    }

    /// The same sealer with another clock, which supplies the randomness for nonces and keys.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The clock that supplies the randomness.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A new random key.
    #[must_use]
    pub fn fresh_key(&self) -> [u8; 32] {
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(16) {
            part.copy_from_slice(&self.clock.random().to_ne_bytes());
        }
        key
    }

    /// A secret for another purpose, which does not reveal the key: SHA-256 of key and purpose.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        Sha256::new_with_prefix(self.key.expose_secret())
            .chain_update(purpose)
            .finalize()
            .into()
    }

    /// Identifies the key without revealing it: 64 bits of a secret derived from it, in hexadecimal digits.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let secret = self.derive("tandem sealing key fingerprint");
        let digest = Sha256::digest(secret);
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Seals `plain` for the place that `associated` names.
    #[must_use]
    pub fn seal(&self, plain: &[u8], associated: &[u8]) -> String {
        let bytes = URL_SAFE_NO_PAD.encode(self.seal_bytes(plain, associated));
        match &self.name {
            Some(name) => format!("{NAMED_PREFIX}{name}.{bytes}"),
            None => format!("{PREFIX}{bytes}"),
        }
    }

    /// Seals `plain` for the place that `associated` names, as bytes: nonce, ciphertext and tag.
    #[must_use]
    pub fn seal_bytes(&self, plain: &[u8], associated: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&self.clock.random().to_ne_bytes()[..NONCE_BYTES]);
        let payload = Payload {
            msg: plain,
            aad: associated,
        };
        let mut sealed = nonce.to_vec();
        // AES-GCM refuses only texts over 64 GiB. The empty ciphertext would not open, so nothing is lost silently.
        sealed.extend(
            self.cipher
                .encrypt(Nonce::from_slice(&nonce), payload)
                .unwrap_or_default(),
        );
        sealed
    }

    /// Opens a text that was sealed for the place that `associated` names.
    ///
    /// # Errors
    /// When it is not a sealed text, or was sealed with another key or for another place.
    pub fn open(&self, sealed: &str, associated: &[u8]) -> Result<Vec<u8>, OpenError> {
        let named = sealed.strip_prefix(NAMED_PREFIX);
        let (name, text) = match named.and_then(|rest| rest.split_once('.')) {
            Some((name, text)) => (Some(name), text),
            None => (
                None,
                sealed.strip_prefix(PREFIX).ok_or(OpenError::Malformed)?,
            ),
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| OpenError::Malformed)?;
        let is_named = |sealer: &Self| match (name, &sealer.name) {
            (Some(name), Some(own)) => name == &**own,
            (Some(name), None) => name == sealer.fingerprint(),
            (None, _) => true,
        };
        let mut opened = Err(OpenError::Refused);
        for sealer in self.all().filter(|sealer| is_named(sealer)) {
            opened = sealer.open_bytes(&bytes, associated);
            if opened.is_ok() {
                break;
            }
        }
        opened
    }

    /// Opens bytes that were sealed for the place that `associated` names.
    ///
    /// # Errors
    /// When they are too few, or were sealed with another key or for another place.
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
    fn of_several_keys_the_first_seals_and_all_open() {
        let (old, new) = (
            Sealer::replacing(&[7; 32], &[]),
            Sealer::replacing(&[8; 32], &[[7; 32]]),
        );
        let unnamed = Sealer::new(&[7; 32]).seal(b"1234", b"1");
        let named = old.seal(b"1234", b"1");
        assert!(named.starts_with(&format!("v2.{}.", old.fingerprint())));
        for sealed in [&unnamed, &named] {
            assert_eq!(new.open(sealed, b"1").unwrap(), b"1234");
            assert_eq!(new.open(sealed, b"2"), Err(OpenError::Refused));
            let resealed = new.reseal(sealed, b"1").unwrap().unwrap();
            assert!(resealed.starts_with(&format!("v2.{}.", new.fingerprint())));
            assert_eq!(
                Sealer::new(&[8; 32]).open(&resealed, b"1").unwrap(),
                b"1234"
            );
            assert_eq!(old.open(&resealed, b"1"), Err(OpenError::Refused));
            assert_eq!(new.reseal(&resealed, b"1"), Ok(None));
        }
        assert_eq!(new.reseal("v2.x", b"1"), Err(OpenError::Malformed));
        assert_eq!(new.fingerprints(), [new.fingerprint(), old.fingerprint()]);
        assert!(new.has(&old.fingerprint()) && !old.has(&new.fingerprint()));
    }

    #[test]
    fn keys_come_from_the_environment_a_file_or_a_command() {
        let text = |key: u8| STANDARD.encode([key; 32]);
        let both = format!("{}\n{}\n", text(8), text(7));
        let is_both = |settings: &SealingSettings| {
            let sealer = Sealer::from_settings(settings).unwrap();
            assert_eq!(
                sealer.fingerprints(),
                Sealer::replacing(&[8; 32], &[[7; 32]]).fingerprints()
            );
        };
        is_both(&SealingSettings {
            sealing_key: Some(both.replace('\n', ",").into()),
            ..SealingSettings::default()
        });
        let file = std::env::temp_dir().join(format!("tandem-{}", uuid::Uuid::now_v7()));
        std::fs::write(&file, &both).unwrap();
        is_both(&SealingSettings {
            sealing_key_file: Some(file.clone()),
            ..SealingSettings::default()
        });
        let command = |command: String| SealingSettings {
            sealing_key_command: Some(command),
            ..SealingSettings::default()
        };
        is_both(&command(format!("cat {}", file.display())));
        std::fs::remove_file(&file).unwrap();
        let failed = Sealer::from_settings(&command("exit 3".to_owned()))
            .unwrap_err()
            .to_string();
        assert!(
            failed.contains("ended with") && failed.contains('3'),
            "{failed}"
        );
        for bad in ["true", "echo short"] {
            assert!(matches!(
                Sealer::from_settings(&command(bad.to_owned())),
                Err(KeyError::Malformed)
            ));
        }
        assert!(matches!(
            Sealer::from_settings(&SealingSettings::default()),
            Err(KeyError::Missing)
        ));
    }

    #[test]
    fn a_fingerprint_tells_one_key_from_another() {
        let fingerprint = |key: u8| Sealer::new(&[key; 32]).fingerprint();
        assert_eq!(fingerprint(7), fingerprint(7));
        assert_ne!(fingerprint(7), fingerprint(8));
        assert_eq!(fingerprint(7).len(), 16);
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
